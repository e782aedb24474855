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
@click.option("--taxdump", type=NamedPath(), help="NCBI taxonomy dump: a folder, a .tar.gz or a .zip file.")
@click.option(
    "--taxids", type=NamedPath(), help="Table with the taxid of each FASTA id, such as NCBI's accession2taxid."
)
@click.option("--ranks", default="superkingdom,phylum,genus", help="Ranks to label, coarsest first, joined by commas.")
@click.option(
    "--incomplete",
    type=click.Choice(["drop", "null"]),
    default="drop",
    help="Drop sequences that lack a rank, or keep them with null labels.",
)
@click.option(
    "--split",
    default="stratified",
    metavar="stratified|hash|COLUMN",
    help="Split at random within each class, by a hash of the header, or as a column of the table says.",
)
@click.option("--test-share", default=0.02, help="Share of the test part in a stratified split, from 0 to 1.")
@click.option(
    "--validation-share", default=0.1, help="Share of the validation part in a stratified split, from 0 to 1."
)
@click.option("--seed", default=0, help="Seed for a stratified split.")
@click.option("--sequence-column", default="sequence", help="Column of a table that contains the sequences.")
@click.option(
    "--taxid-column",
    help="Column of a table that contains the taxids; without it, columns named after the ranks contain the labels.",
)
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
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
                other[0],
                f"it for the marker set, which has the ranks {', '.join(module.RANKS)}, null labels and a "
                "split by hash",
                "SOURCES of your own",
                "A FASTA with taxids also needs --taxdump.",
            )
        counts = train_module("data.markers").prepare_markers(sources[0] if sources else None, output)
    else:
        if shares and kind != "stratified":
            raise UsageError(shares[0], f"it with --split {split}", "it with --split stratified only")
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
