"""`wyr-batch export`."""

from __future__ import annotations

import importlib
import logging
import math
import os
from pathlib import Path
from typing import Any

import click

from wyr_batch.checks.files import shown_path
from wyr_batch.checks.outputs import FOLDER, Output, Source, check_outputs
from wyr_batch.cli.log import set_up
from wyr_batch.cli.params import GroupedCommand, NamedPath
from wyr_batch.errors import MissingExtraError, UsageError

logger = logging.getLogger(__name__)


GROUPS = {
    "Model": ("explanandum_dir", "explainer_dir", "max_tokens", "window_bp", "half_checkpoint"),
    "Precision": ("fp16", "dtypes", "tensorrt", "verify", "threads"),
    "Output": ("output", "overwrite", "name", "licence", "metrics"),
    "Message": ("quiet", "debug", "help"),
}


@click.command("export", cls=GroupedCommand, groups=GROUPS)
@click.option("--explanandum", "explanandum_dir", type=NamedPath(), help="Folder of the classifier.")
@click.option("--explainer", "explainer_dir", type=NamedPath(), help="Folder of the classifier's Explainer.")
@click.option("-o", "--output", type=NamedPath(), default=Path("wyr-bundle"), help="Bundle to write.")
@click.option("--name", help="Name of the bundle. [default: the output's name; the starter keeps its own]")
@click.option(
    "--window",
    "window_bp",
    default=1500,
    metavar="BP",
    help="Length in bases above which `wyr-batch run` cuts a read into windows; of 6-mers only.",
)
@click.option("--max-tokens", default=512, help="Longest input of the graph in tokens, special ones included.")
@click.option(
    "--verify",
    type=NamedPath(),
    metavar="READS",
    help="Compare the graph with torch on the first 256 of these. [default: built-in reads for 20 s, or random tokens]",
)
@click.option(
    "--metrics", type=NamedPath(), metavar="JSON", help="Put the output of `wyr-batch evaluate` into the bundle."
)
@click.option("--fp16", is_flag=True, help="Also write a float16 graph, as --dtype float16 does.")
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    multiple=True,
    help="Also prove the bundle in this precision (repeatable); bfloat16 needs no graph of its own.",
)
@click.option("--tensorrt", is_flag=True, help="Build TensorRT plans for this machine's GPU, and prove and time them.")
@click.option("--licence", default="", show_default=False, help="Licence of the weights.")
@click.option(
    "--half-checkpoint", is_flag=True, help="Round the weights to float16 first, which halves the size of the bundle."
)
@click.option("-t", "--threads", type=int, help="CPU threads for the comparison. [default: all this process may use]")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
def command(
    explanandum_dir: Path | None,
    explainer_dir: Path | None,
    output: Path,
    name: str | None,
    verify: Path | None,
    metrics: Path | None,
    fp16: bool,
    tensorrt: bool,
    dtypes: tuple[str, ...],
    half_checkpoint: bool,
    threads: int | None,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Fuse Explainer, mask and Explanandum into one ONNX graph, prove it against torch, and write a bundle.

    Without checkpoints, the built-in starter is exported.

    \b
    wyr-batch export --explanandum explanandum --explainer explainer -o my_bundle
    wyr-batch export --fp16 -o starter_bundle --verify reads.fastq.gz
    wyr-batch export --fp16 --tensorrt -o starter_bundle
    """
    set_up(quiet, False, None)
    from wyr_batch.bundle import load_bundle, starter_path
    from wyr_batch.host import available_cpus
    from wyr_batch.proof.batches import READS

    if (explanandum_dir is None) != (explainer_dir is None):
        raise UsageError("--explanandum, --explainer", "one of the two", "both, or neither for the starter")
    read = {"--explanandum": explanandum_dir, "--explainer": explainer_dir, "--verify": verify, "--metrics": metrics}
    sources = [Source(flag, path) for flag, path in read.items() if path is not None]
    sources.append(Source("the built-in starter", starter_path()))
    check_outputs([Output("-o", output, FOLDER, makes_parents=True)], sources)
    described: dict[str, Any] = {}
    if metrics:
        described["metrics"] = read_metrics(metrics)
    try:
        bundles = importlib.import_module("wyr_batch.export.write_bundle")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wyr_batch"):
            raise
        raise MissingExtraError("wyr-batch export", error.name or "torch", "export") from None
    on_gpu = importlib.import_module("wyr_batch.export.tensorrt_plans")
    gpu = on_gpu.check_tensorrt() if tensorrt else None
    if explanandum_dir is None:
        starter = load_bundle()
        for entry in starter.files:
            starter.verified_entry(entry)
        explanandum_dir = starter.folder / "checkpoint" / "explanandum"
        explainer_dir = starter.folder / "checkpoint" / "explainer"
        described = {"metrics": starter.metrics, "licence": starter.licence, "name": starter.name, **described}
        half_checkpoint = True
    if options["licence"]:
        described["licence"] = options.pop("licence")
    options.pop("licence", None)
    own_name = shown_path(os.path.basename(os.path.abspath(output)))
    described["name"] = described.get("name", own_name) if name is None else name
    precisions = tuple(sorted({"float32", *dtypes} | ({"float16"} if fp16 else set()), reverse=True))
    bundle = bundles.export_bundle(
        explanandum_dir,
        explainer_dir,
        output,
        reads=verify or READS,
        dtypes=precisions,
        half_checkpoint=half_checkpoint,
        compact=half_checkpoint,
        threads=threads or available_cpus(),
        progress=logger.info,
        reads_s=math.inf if verify else importlib.import_module("wyr_batch.export.proof").READS_S,
        show_bar=not quiet,
        **described,
        **options,
    )
    logger.info("%s: %s", output, bundle.summary())
    for proven, record in bundle.all_proofs.items():
        logger.info("  %s", proof_line(proven, record))
    if gpu is not None:
        speeds = on_gpu.prove_on_gpu(bundle, gpu, precisions, threads or available_cpus(), logger.info)
        for name, speed in speeds.items():
            logger.info("  %s: %.0f rows/s", name, speed)


def proof_line(name: str, record: Any) -> str:
    """Return a record of a proof in one line."""
    labels = min([*record["label_agreement"], *record["masked_label_agreement"]])
    mask = record["max_abs_diff"]["mask"]
    return (
        f"{name}: {record['verdict']}, labels {labels:.2%}, mask max {mask if mask is not None else float('nan'):.2g} "
        f"mean {record['mask_mean_abs_diff']:.2g} off float32 torch on {record['n_reads']} reads"
    )


def read_metrics(path: Path) -> Any:
    """Return the content of a JSON file. Raises: UsageError."""
    from wyr_batch.checks.fields import Fields

    content = Fields.read(path, UsageError, "Name with --metrics what wyr-batch evaluate printed.").content
    return {name: value for name, value in content.items() if name not in ("figure_data", "tradeoff")}
