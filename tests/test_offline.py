"""Every command and runtime without a network: no internet socket is opened, nothing goes into the home folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from commands import command_after, finished
from no_network import can_forbid

pytestmark = pytest.mark.skipif(not can_forbid(), reason="the filter is for Linux on x86-64")

EXAMPLE = Path(__file__).parents[1] / "examples" / "reads.fastq.gz"
FEW = ["--steps", "1", "--evaluate-every", "1", "--validation-reads", "4", "--batch-reads", "2", "--window", "60"]
COMMANDS = [
    *(
        ["run", str(EXAMPLE), "-n", "3", "-q", "-o", f"m-{name}.parquet", "-x", "cpu", "--runtime", name]
        for name in ("onnx", "openvino", "torch")
    ),
    ["info"],
    ["train", "prepare", "table.csv", "-o", "table.parquet"],
    ["train", "explanandum", "table.parquet", "-o", "new", "--min-sequences", "1", "--layers", "1", *FEW],
    ["train", "explainer", "table.parquet", "--explanandum", "new", "-o", "its", *FEW],
    ["evaluate", "table.parquet", "--explanandum", "new", "--explainer", "its", "-q", "--faithfulness-reads", "0"],
    ["export", "--explanandum", "new", "--explainer", "its", "--max-tokens", "70", "--window", "60", "-q", "-t", "1"],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all commands have been run."""
    folder = tmp_path_factory.mktemp("offline")
    rows = [f"{'ACGTTGCA' * 20},S{i % 2},P{i % 2},G{i % 2}" for i in range(60)]
    (folder / "table.csv").write_text("\n".join(["sequence,superkingdom,phylum,genus", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    """All commands in one process that an internet socket would kill; as outside of CI, where reports are sent."""
    (folder / "home").mkdir()
    outside_ci = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "PYTEST_CURRENT_TEST")
    environment = {name: value for name, value in os.environ.items() if name not in outside_ci}
    before = (
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "from no_network import forbid_internet",
        "forbid_internet()",
        "from wyr_batch.cli import main",
        f"for words in {COMMANDS!r}:",
        "    print(*words[:3], file=sys.stderr, flush=True)",
        "    assert main(words) == 0, words",
    )
    return finished(
        [*command_after(*before), "--version"], cwd=folder, env={**environment, "HOME": str(folder / "home")}
    )


def test_no_command_opens_an_internet_socket_or_writes_into_the_home_folder(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert done.returncode == 0, done.stderr[-2000:]
    paths = [path.name.lower() for path in (folder / "home").rglob("*")]
    assert not [name for name in paths if "telemetry" in name or "intel" in name]
