"""`wyr-batch train prepare`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from wyr_batch.cli.params import GroupedCommand, NamedPath
from wyr_batch.cli.streams import print_result
from wyr_batch.cli.train.common import given, train_module
from wyr_batch.errors import UsageError

GROUPS = {
    "Data and output": ("output", "kind", "incomplete"),
    "Reads": ("taxdump", "taxids", "ranks", "sequence_column", "taxid_column"),
    "Texts and proteins": (
        "text_column",
        "pair_column",
        "id_column",
        "label_columns",
        "label_names",
        "rationale_column",
    ),
    "Parts": ("split", "test_share", "validation_share", "seed"),
    "Message": ("debug", "help"),
}


@click.command("prepare", cls=GroupedCommand, groups=GROUPS)
@click.argument("sources", type=NamedPath(), nargs=-1)
@click.option("-o", "--output", required=True, type=NamedPath(), help="Parquet file to write.")
@click.option(
    "--input",
    "kind",
    type=click.Choice(["reads", "text", "proteins"]),
    default="reads",
    help="What the sequences are: reads of nucleotides, or tables of texts or proteins.",
)
@click.option("--taxdump", type=NamedPath(), help="NCBI taxonomy dump: a folder, a .tar.gz or a .zip file.")
@click.option(
    "--taxids", type=NamedPath(), help="Table with the taxid of each FASTA id, such as NCBI's accession2taxid."
)
@click.option(
    "--ranks", default="superkingdom,phylum,genus", help="Ranks of reads to label, coarsest first, joined by commas."
)
@click.option(
    "--incomplete",
    type=click.Choice(["drop", "null"]),
    default="drop",
    help="Drop sequences that lack a rank or label, or keep them with null labels.",
)
@click.option(
    "--split",
    default="stratified",
    metavar="stratified|hash|COLUMN",
    help="Split at random within each class (of several labels at once, each in its share), by a hash (of a read's "
    "header, of a text itself), or as a column of the table says. Texts are split by hash if this is not given.",
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
@click.option(
    "--text-column",
    help="Column of the texts. [default: text, sentence or the only one of strings; sequence of proteins]",
)
@click.option("--pair-column", help="Column of the second texts of pairs.")
@click.option("--id-column", help="Column of the names of texts. [default: file and row]")
@click.option(
    "--label-columns",
    help="Columns of labels, joined by commas: one of a label a row, one of lists of labels, or several of 0 and 1. "
    "[default: label or labels]",
)
@click.option(
    "--label-names", help="What the labels 0, 1, 2 ... are called, joined by commas, as the classifier has it."
)
@click.option("--rationale-column", help="Column of the spans that people marked, lists of [start, end) in characters.")
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
def command(
    sources: tuple[Path, ...],
    output: Path,
    kind: str,
    split: str,
    test_share: float,
    validation_share: float,
    seed: int,
    incomplete: str,
    debug: bool,
    **columns: Any,
) -> None:
    """Write labelled reads, texts or proteins as one training Parquet, split into training, validation and test part.

    SOURCES are FASTA files with taxids (--taxids, or `>TAXID INDEX` headers), BERTax trees (*_fragments.json beside
    *_species_picked.txt), or Parquet, CSV and TSV tables. Without one, or for a markers.fasta without --taxdump, it is
    the marker set of Debian's metaphlan2-data (downloaded with apt), labelled by PyPI's taxoniq, always split by hash.
    With --input text or proteins, SOURCES are CSV, TSV, JSONL and Parquet tables, or folders of datasets' save_to_disk.

    \b
    wyr-batch train prepare -o markers.parquet
    wyr-batch train prepare genomes.fasta --taxids ids.tsv --taxdump taxdump.tar.gz -o genomes.parquet
    wyr-batch train prepare bertax/ --taxdump taxdump.tar.gz -o bertax.parquet
    wyr-batch train prepare reads.csv --split part -o reads.parquet
    wyr-batch train prepare reviews.csv --input text --label-columns sentiment -o reviews.parquet
    """
    other_kind, names = ("reads", GROUPS["Reads"]) if kind != "reads" else ("text", GROUPS["Texts and proteins"])
    if other := given(*names):
        raise UsageError(other[0], f"it with --input {kind}", f"--input {other_kind}")
    if kind != "reads" and not given("split"):
        split = "hash"
    rule_kind = split if split in ("stratified", "hash") else "column"
    rule = train_module("data.prepare").SplitRule(rule_kind, test_share, validation_share, seed)
    split_column = split if rule_kind == "column" else None
    shares = given("test_share", "validation_share", "seed")
    is_marker_set = not sources or (len(sources) == 1 and sources[0].name == "markers.fasta" and not columns["taxdump"])
    if kind == "reads" and is_marker_set:
        counts = _markers(sources, output, split, incomplete, shares, columns)
    else:
        if shares and rule_kind != "stratified":
            raise UsageError(shares[0], f"it with --split {split}", "it with --split stratified only")
        prepare = _reads if kind == "reads" else _texts
        counts = prepare(sources, output, kind, rule, split_column, incomplete, columns)
    print_result(json.dumps(counts.to_json(), indent=2))


def _markers(
    sources: Sequence[Path],
    output: Path,
    split: str,
    incomplete: str,
    shares: Sequence[str],
    columns: Mapping[str, Any],
) -> Any:
    """Prepare the marker set. Raises: UsageError for options that it has not."""
    ranks = train_module("data.prepare").RANKS
    other = [*shares, *given("taxids", "sequence_column", "taxid_column")]
    fixed = {
        "ranks": _names(columns["ranks"]) == ranks,
        "split": split == "hash",
        "incomplete": incomplete == "null",
    }
    other += given(*(name for name, is_so in fixed.items() if not is_so))
    if other:
        raise UsageError(
            other[0],
            f"it for the marker set, which has the ranks {', '.join(ranks)}, null labels and a split by hash",
            "SOURCES of your own",
            "A FASTA with taxids also needs --taxdump.",
        )
    return train_module("data.markers").prepare_markers(sources[0] if sources else None, output)


def _reads(
    sources: Sequence[Path],
    output: Path,
    kind: str,
    rule: Any,
    split_column: str | None,
    incomplete: str,
    columns: Mapping[str, Any],
) -> Any:
    module = train_module("data.prepare")
    return module.prepare_sources(
        sources,
        output,
        _names(columns["ranks"]),
        rule,
        incomplete,
        columns["taxdump"],
        columns["taxids"],
        module.Columns(columns["sequence_column"], columns["taxid_column"]),
        split_column,
    )


def _texts(
    sources: Sequence[Path],
    output: Path,
    kind: str,
    rule: Any,
    split_column: str | None,
    incomplete: str,
    columns: Mapping[str, Any],
) -> Any:
    from wyr_batch.texts.choose import TextColumns

    module = train_module("data.texts.prepare")
    text = columns["text_column"] or ("sequence" if kind == "proteins" else None)
    request = module.TextRequest(
        kind,
        TextColumns(text, columns["pair_column"], columns["id_column"]),
        _names(columns["label_columns"]),
        _names(columns["label_names"]),
        split_column,
        columns["rationale_column"],
    )
    return module.prepare_texts(sources, output, request, rule, incomplete)


def _names(joined: str | None) -> tuple[str, ...]:
    """Return names that commas join."""
    return () if joined is None else tuple(name.strip() for name in joined.split(","))
