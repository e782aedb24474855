"""`wyr-batch export`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from wyr_batch.errors import MissingExtraError, UsageError
from wyr_batch.log import logger, set_up


@click.command("export")
@click.option("--explanandum", "explanandum_dir", type=click.Path(path_type=Path), help="Checkpoint of the classifier.")
@click.option("--explainer", "explainer_dir", type=click.Path(path_type=Path), help="Checkpoint of its Explainer.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("wyr-bundle"), help="Bundle to write.")
@click.option("--name", help="Of the bundle. [default: the output's name]")
@click.option("--window", "window_bp", default=1500, metavar="BP", help="Longer reads are cut by `run`.")
@click.option("--max-tokens", default=512, help="Longest row the graph takes, <cls> counted.")
@click.option(
    "--verify", type=click.Path(path_type=Path), metavar="READS", help="Compare on these, not on the built-in reads."
)
@click.option("--metrics", type=click.Path(path_type=Path), metavar="JSON", help="What wyr-batch evaluate printed.")
@click.option("--fp16", is_flag=True, help="A float16 graph as well; the same as --dtype float16.")
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    multiple=True,
    help="Precisions to prove beside float32. bfloat16 needs no file: OpenVINO and torch compute in it.",
)
@click.option("--tensorrt", is_flag=True, help="Build TensorRT plans for this machine's GPU, and prove and time them.")
@click.option("--licence", default="", help="Of the weights.")
@click.option("--half-checkpoint", is_flag=True, help="Round weights to float16 first: half the size, same function.")
@click.option("-t", "--threads", type=int, help="For the comparison. [default: the CPUs this process may use]")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
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
    from wyr_batch.bundle import load_bundle
    from wyr_batch.parity import READS, token_arrays
    from wyr_batch.threads import available_cpus

    try:
        bundles = importlib.import_module("wyr_batch.export.bundle")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wyr_batch"):
            raise
        raise MissingExtraError("wyr-batch export", error.name or "torch", "export") from None
    on_gpu = importlib.import_module("wyr_batch.export.gpu")
    gpu = on_gpu.check_tensorrt() if tensorrt else None
    if (explanandum_dir is None) != (explainer_dir is None):
        raise UsageError("--explanandum, --explainer: got one of the two, expected both, or neither for the starter.")
    described: dict[str, Any] = {}
    if explanandum_dir is None:
        starter = load_bundle()
        for entry in starter.files:
            starter.verified_entry(entry)
        explanandum_dir = starter.folder / "checkpoint" / "explanandum"
        explainer_dir = starter.folder / "checkpoint" / "explainer"
        described = {"metrics": starter.metrics, "licence": starter.licence, "name": starter.name}
        half_checkpoint = True
    if metrics:
        described["metrics"] = read_metrics(metrics)
    if options["licence"]:
        described["licence"] = options.pop("licence")
    options.pop("licence", None)
    described["name"] = name or described.get("name") or output.name
    precisions = tuple(sorted({"float32", *dtypes} | ({"float16"} if fp16 else set()), reverse=True))
    bundle = bundles.export_bundle(
        explanandum_dir,
        explainer_dir,
        output,
        reads=token_arrays(verify or READS),
        dtypes=precisions,
        half_checkpoint=half_checkpoint,
        compact=half_checkpoint,
        threads=threads or available_cpus(),
        progress=logger.info,
        **described,
        **options,
    )
    logger.info("%s: %s", output, bundle.summary())
    for proven, record in (*bundle.parity.items(), *bundle.runtime_parity.items()):
        logger.info("  %s", parity_line(proven, record))
    if gpu is not None:
        speeds = on_gpu.prove_on_gpu(bundle, gpu, precisions, threads or available_cpus(), logger.info)
        for name, speed in speeds.items():
            logger.info("  %s: %.0f rows/s", name, speed)


def parity_line(name: str, record: Any) -> str:
    """Return a parity record in one line."""
    labels = min(*record["label_agreement"], *record["masked_label_agreement"])
    mask = record["max_abs_diff"]["mask"]
    return (
        f"{name}: {record['verdict']}, labels {labels:.2%}, mask max {mask if mask is not None else float('nan'):.2g} "
        f"mean {record['mask_mean_abs_diff']:.2g} off float32 torch on {record['n_reads']} reads"
    )


def read_metrics(path: Path) -> Any:
    """Return the content of a JSON file. Raises: UsageError."""
    import json

    try:
        content = json.loads(path.read_text())
        return {name: value for name, value in content.items() if name not in ("figure_data", "tradeoff")}
    except (OSError, ValueError) as error:
        raise UsageError(f"--metrics {path}: got '{error}', expected what wyr-batch evaluate printed.") from None
