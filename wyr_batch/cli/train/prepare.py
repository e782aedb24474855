"""`wyr-batch train prepare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wyr_batch.cli.params import NamedPath
from wyr_batch.cli.streams import print_result
from wyr_batch.cli.train.common import given, train_module
from wyr_batch.errors import UsageError


@click.command("prepare")
@click.argument("sources", type=NamedPath(), nargs=-1)
@click.option("-o", "--output", required=True, type=NamedPath(), help="Parquet file to write.")
@click.option("--taxdump", type=NamedPath(), help="NCBI taxonomy dump: directory, .tar.gz or .zip.")
@click.option("--taxids", type=NamedPath(), help="Table of FASTA ids and taxids; accession2taxid fits.")
@click.option("--ranks", default="superkingdom,phylum,genus", help="Coarsest first.")
@click.option("--incomplete", type=click.Choice(["drop", "null"]), default="drop", help="Sequences lacking a rank.")
@click.option("--split", default="stratified", metavar="stratified|hash|COLUMN", help="How to deal sequences out.")
@click.option("--test-share", default=0.02, help="Share of the test part (stratified).")
@click.option("--validation-share", default=0.1, help="Share of the validation part (stratified).")
@click.option("--seed", default=0, help="Of the stratified split.")
@click.option("--sequence-column", default="sequence", help="Of a table.")
@click.option("--taxid-column", help="Of a table; left out: its columns named as the ranks hold labels.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def command(
    sources: tuple[Path, ...],
    output: Path,
    taxdump: Path | None,
    taxids: Path | None,
    ranks: str,
    incomplete: str,
    split: str,
    test_share: float,
    validation_share: float,
    seed: int,
    sequence_column: str,
    taxid_column: str | None,
    debug: bool,
) -> None:
    """Write labelled sequences as one training Parquet, split into training, validation and test part.

    SOURCES are FASTA files with taxids (--taxids, or `>TAXID INDEX` headers), BERTax trees (*_fragments.json beside
    *_species_picked.txt), or Parquet, CSV and TSV tables. Without one, or for a markers.fasta without --taxdump, it is
    the marker set of Debian's metaphlan2-data (downloaded with apt), labelled by PyPI's taxoniq, always split by hash.

    \b
    wyr-batch train prepare -o markers.parquet
    wyr-batch train prepare genomes.fasta --taxids ids.tsv --taxdump taxdump.tar.gz -o genomes.parquet
    wyr-batch train prepare bertax/ --taxdump taxdump.tar.gz -o bertax.parquet
    wyr-batch train prepare reads.csv --split part -o reads.parquet
    """
    module = train_module("data.prepare")
    names = tuple(name.strip() for name in ranks.split(","))
    kind = split if split in ("stratified", "hash") else "column"
    rule = module.SplitRule(kind, test_share, validation_share, seed)
    shares = given("test_share", "validation_share", "seed")
    if not sources or (len(sources) == 1 and sources[0].name == "markers.fasta" and taxdump is None):
        other = shares + given("taxids", "sequence_column", "taxid_column")
        fixed = {"ranks": names == module.RANKS, "split": split == "hash", "incomplete": incomplete == "null"}
        other += given(*(name for name, is_so in fixed.items() if not is_so))
        if other:
            raise UsageError(
                f"{other[0]}: got it for the marker set, which has the ranks {', '.join(module.RANKS)}, null labels "
                "and a split by hash, expected SOURCES of your own. A FASTA with taxids also needs --taxdump."
            )
        counts = train_module("data.markers").prepare_markers(sources[0] if sources else None, output)
    else:
        if shares and kind != "stratified":
            raise UsageError(f"{shares[0]}: got it with --split {split}, expected it with --split stratified only.")
        counts = module.prepare_sources(
            sources,
            output,
            names,
            rule,
            incomplete,
            taxdump,
            taxids,
            module.Columns(sequence_column, taxid_column),
            split if kind == "column" else None,
        )
    print_result(json.dumps(counts.to_json(), indent=2))
