"""`wyr-batch train`: prepare, explanandum, explainer. The work is in `wyr_batch.train`, imported when it is called."""

from __future__ import annotations

import click

from wyr_batch.cli.train import explainer, explanandum, prepare


@click.group("train")
def command() -> None:
    """Prepare labelled reads, texts or proteins, train Explanandum and Explainer.

    \b
    wyr-batch train prepare -o markers.parquet
    wyr-batch train explanandum markers.parquet -o explanandum
    wyr-batch train explainer markers.parquet --explanandum explanandum -o explainer
    """


for module in (prepare, explanandum, explainer):
    command.add_command(module.command)
