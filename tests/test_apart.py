"""A function in a process of its own: value, messages and errors come back, and no two runtimes meet in a process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import FakeLibrary
from toy_engine import FileBundle, ToyEngine

from wyr_batch import choose
from wyr_batch.bundle import Bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.engines.base import Engine
from wyr_batch.engines.cuda import Gpu
from wyr_batch.errors import MissingExtraError, ModelError, OutOfMemory
from wyr_batch.proof import versions
from wyr_batch.proof.apart import apart

logger = logging.getLogger("wyr_batch.a_test")


def talk(word: str) -> tuple[str, int]:
    logger.info("said %s", word)
    logger.warning("and %d %%", 5)
    print("what a library prints")
    os.write(1, b"or writes")
    return word * 2, os.getpid()


def test_value_and_messages_come_from_another_process(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "wyr_batch")
    value, process = apart("talking", talk, "ab")
    assert value == "abab"
    assert process != os.getpid()
    assert caplog.record_tuples == [
        ("wyr_batch.a_test", logging.INFO, "said ab"),
        ("wyr_batch.a_test", logging.WARNING, "and 5 %"),
    ]
    out, err = capfd.readouterr()
    assert out == ""
    assert "what a library prints" in err
    caplog.clear()
    caplog.set_level(logging.ERROR, "wyr_batch")
    apart("talking", talk, "ab")
    assert not caplog.records


def refuse(kind: str) -> None:
    if kind == "missing":
        raise MissingExtraError("--runtime torch", "torch", "export")
    if kind == "bug":
        raise ValueError("no such thing")
    if kind == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGSEGV if kind == "crash" else signal.SIGRTMIN + 2)


def give_back(value: object) -> Any:
    return (lambda: value) if value == "no pickle" else value


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("missing", MissingExtraError, r"got no package 'torch', .*pip install 'wyr-batch\[export\]'"),
        ("bug", ModelError, "got 'ValueError: no such thing', expected no error"),
        ("exit", ModelError, "refusing: got one that ended with exit code 7, expected a process that goes to its end"),
        ("crash", ModelError, "refusing: got one that SIGSEGV ended"),
        ("unnamed", ModelError, f"refusing: got one that signal {signal.SIGRTMIN + 2} ended"),
    ],
)
def test_what_goes_wrong_there_is_an_error_here(kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        apart("refusing", refuse, kind)


def test_what_cannot_go_there_or_come_back_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match="giving: got 'AttributeError: Can't pickle"):
        apart("giving", give_back, "no pickle")
    path, name = list(sys.path), give_back.__module__
    monkeypatch.setattr(sys, "path", [entry for entry in path if not (Path(entry) / f"{name}.py").exists()])
    with pytest.raises(ModelError, match=f"giving: got 'ModuleNotFoundError: No module named '{name}'', expected no"):
        apart("giving", give_back, 1)
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ModelError, match=r"giving: got '.*No such file.*' for a process of '/no/such/python'"):
        apart("giving", give_back, 1)
    assert "Traceback" not in capfd.readouterr().err


def test_a_path_of_another_type_is_no_hindrance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [Path("no such folder"), *sys.path])
    assert apart("giving", give_back, 1) == 1


def test_what_the_start_of_the_interpreter_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(1, b'loading modules\\nready')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert apart("giving", give_back, 1) == 1


def leave_threads_behind() -> int:
    def go_on() -> None:
        while True:
            logger.debug("still here")

    threading.Thread(target=go_on, daemon=True).start()
    threading.Thread(target=time.sleep, args=(600,)).start()
    return 1


def test_an_answer_is_the_end_whatever_still_runs_there(capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    assert apart("leaving", leave_threads_behind) == 1
    assert time.monotonic() - start < 300  # the thread sleeps for twice as long
    assert "Traceback" not in capfd.readouterr().err


def linger() -> None:
    logger.info("%d", os.getpid())
    time.sleep(600)


class Interrupting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        self.process = int(record.getMessage())
        raise KeyboardInterrupt


def test_an_interrupted_wait_ends_the_other_process(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wyr_batch")
    handler = Interrupting()
    logger.addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            apart("waiting", linger)
    finally:
        logger.removeHandler(handler)
    with pytest.raises(ProcessLookupError):
        os.kill(handler.process, 0)


def test_the_other_process_ends_with_one_that_is_killed() -> None:
    code = (
        f"import logging, sys; sys.path[:] = {sys.path!r}; logging.basicConfig(stream=sys.stdout, level=logging.INFO, "
        f"format='%(message)s'); from wyr_batch.proof.apart import apart; from {linger.__module__} import linger; "
        "apart('waiting', linger)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        other = int(asking.stdout.readline())
        asking.kill()
        try:
            asking.communicate(timeout=60)  # to the end of what both write to
        except subprocess.TimeoutExpired:
            os.kill(other, signal.SIGKILL)
            raise


def be_told_to_end() -> int:
    for each in (signal.SIGINT, signal.SIGTERM):  # as a terminal or a batch system tells all processes of a job
        os.kill(os.getpid(), each)
    return 1


def test_signals_to_all_processes_are_for_the_one_that_asks() -> None:
    assert apart("signalling", be_told_to_end) == 1


# What `runtime_version` asks of each package; each writes down the process that loads it.
PACKAGES = {
    "tensorrt": "__version__ = '10.14.1'",
    "onnxruntime": "__version__ = '1.30.0'\ndef get_available_providers(): return ['CUDAExecutionProvider']",
    "torch": "__version__ = '2.13.0'\nfloat32 = float16 = bfloat16 = Tensor = object\n"
    "class cuda:\n    def is_available(): return True",
}


def test_versions_are_asked_in_a_process_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in PACKAGES.items():
        note = f"import os\nopen({str(tmp_path / name)!r} + '.loaded', 'a').write(f'{{os.getpid()}} ')\n"
        (tmp_path / f"{name}.py").write_text(note + content + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("WYR_KERNELS", "off")
    versions._asked_apart.cache_clear()
    problems: dict[str, str] = {}
    for _ in range(2):
        found = choose.usable_runtimes("auto", "auto", problems)
    assert problems == {}
    assert found == {"tensorrt": "10.14.1", "torch": "2.13.0", "onnx": "1.30.0"}
    loaded = [(tmp_path / f"{name}.loaded").read_text().split() for name in PACKAGES]
    assert [len(processes) for processes in loaded] == [1, 1, 1], "asked once"
    assert len({str(os.getpid()), *(process for [process] in loaded)}) == 4
    versions._asked_apart.cache_clear()


class Machine:
    """Engines that are toys; says which runtime was loaded in which process, this one (0) or another."""

    def __init__(self) -> None:
        self.loaded: list[tuple[int, str]] = []
        self._n_processes = self._process = 0

    def apart(self, what: str, function: Callable[..., None], *arguments: object) -> None:
        self._n_processes += 1
        self._process = self._n_processes
        try:
            if what.split()[0] == "tensorrt":
                raise ModelError(what, "one that SIGSEGV ended", "a process that goes to its end")
            function(*arguments)
        finally:
            self._process = 0

    def load(self, bundle: Bundle, gpu: Gpu, request: EngineRequest) -> Iterator[Engine]:
        self.loaded.append((self._process, request.runtime))
        engine = ToyEngine()
        engine.runtime, engine.dtype, engine.device = request.runtime, request.dtype, gpu.device
        yield engine


@pytest.fixture
def machine(library: FakeLibrary, usable_runtimes: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Machine:
    usable_runtimes(tensorrt="1", torch="1", onnx="1")
    machine = Machine()
    monkeypatch.setattr(choose, "apart", machine.apart)
    monkeypatch.setattr(choose, "load_on_gpu", machine.load)
    return machine


def test_only_the_runtime_that_is_taken_is_loaded_here(
    machine: Machine, file_bundle: FileBundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prove = choose.ensure_proven

    def refuse_torch(engine: Engine, *arguments: Any) -> None:
        if engine.runtime == "torch":
            raise ModelError(engine.describe(), "other labels", "those of the CPU")
        prove(engine, *arguments)

    monkeypatch.setattr(choose, "ensure_proven", refuse_torch)
    request = EngineRequest("cuda", "auto", "float32", 1)
    with open_engine(file_bundle, request) as engine:
        assert engine.runtime == "onnx"
    assert machine.loaded == [(2, "torch"), (3, "onnx"), (0, "onnx")]
    assert "tensorrt float32 on cuda:0: got one that SIGSEGV ended" in caplog.text
    assert "torch float32 on cuda:0: got other labels" in caplog.text
    machine.loaded.clear()
    with open_engine(file_bundle, request) as engine:
        assert engine.runtime == "onnx"
    assert machine.loaded == [(0, "onnx")], "the one that has passed before comes first, without a process of its own"


def test_a_runtime_that_fails_on_a_batch_of_its_proof_has_a_successor(
    machine: Machine, file_bundle: FileBundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prove = choose.ensure_proven

    def refuse_torch(engine: Engine, *arguments: Any) -> None:
        if engine.runtime == "torch":
            raise OutOfMemory(engine.describe(), "'out of memory' on 1 reads of 256 tokens", "results")
        prove(engine, *arguments)

    monkeypatch.setattr(choose, "ensure_proven", refuse_torch)
    with open_engine(file_bundle, EngineRequest("cuda", "auto", "float32", 1)) as engine:
        assert engine.runtime == "onnx"
    assert "torch float32 on cuda:0: got 'out of memory'" in caplog.text


def test_runtime_that_passed_its_proof_and_does_not_open_here_has_no_successor(
    machine: Machine, file_bundle: FileBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(bundle: Bundle, gpu: Gpu, request: EngineRequest) -> Iterator[Engine]:
        yield from machine.load(bundle, gpu, request)
        if machine.loaded[-1][0] == 0:
            raise ModelError("a file", "nothing", "it")

    monkeypatch.setattr(choose, "load_on_gpu", load)
    with pytest.raises(ModelError, match="a file: got nothing"):
        open_engine(file_bundle, EngineRequest("cuda", "auto", "float32", 1))
    assert [runtime for process, runtime in machine.loaded if process == 0] == ["torch"]


def test_a_runtime_that_was_asked_for_needs_no_other_process(machine: Machine, file_bundle: FileBundle) -> None:
    with open_engine(file_bundle, EngineRequest("cuda", "onnx", "float32", 1)) as engine:
        assert engine.runtime == "onnx"
    assert machine.loaded == [(0, "onnx")]
