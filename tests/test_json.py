"""JSON that is read is checked: what is not as it should be is a message that names file and field, never a crash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from change_json import MISSING, change
from commands import WYR_BATCH, info_refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from wyr_batch import cache
from wyr_batch.bundle import Bundle, load_bundle, starter_path
from wyr_batch.cli import main
from wyr_batch.cli.export import read_metrics
from wyr_batch.errors import ModelError, UsageError
from wyr_batch.proof.first_use import read_proof


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(starter_path(), tmp_path / "b")


RECORD = ("files", "model.onnx")


@pytest.mark.parametrize(
    ("file", "place", "value", "words"),
    [
        ("bundle", (), [], "b/bundle.json: got [], expected an object"),
        ("bundle", ("schema_version",), "1", 'schema_version: got "1", expected a whole number'),
        ("bundle", ("name",), None, "name: got null, expected text"),
        ("bundle", ("max_tokens",), True, "max_tokens: got true, expected a whole number from 2 to"),
        ("bundle", ("max_tokens",), 1, "max_tokens: got 1, expected"),
        ("bundle", ("max_tokens",), float("inf"), "b/bundle.json: got Infinity, which is no number of JSON"),
        ("bundle", ("window_bp",), 5, "window_bp: got 5, expected a whole number from 6 to"),
        ("bundle", ("window_bp",), 1 << 40, "window_bp: got 1099511627776, expected"),
        ("bundle", ("pooling",), "max", 'pooling: got "max", expected one of mean, cls'),
        ("bundle", ("ranks",), {}, "ranks: got {}, expected a list of objects"),
        ("bundle", ("ranks",), [], "b/bundle.json: got no rank"),
        ("bundle", ("ranks", 0, "name"), 3, "ranks[0].name: got 3, expected text"),
        ("bundle", ("ranks", 1, "labels"), "abc", 'ranks[1].labels: got "abc", expected a list of texts'),
        ("bundle", ("ranks", 1, "labels", 0), None, "expected a list of texts"),
        ("bundle", ("ranks", 1, "labels", 0), "\ud800", "half a character"),
        ("bundle", ("ranks", 1, "name"), "Mask", "b/bundle.json: got the rank 'Mask'"),
        ("bundle", ("files", 0), "model.onnx", "files: got "),
        ("bundle", ("files", 0, "path"), 5, "files[0].path: got 5, expected text"),
        ("bundle", ("files", 0, "sha256"), None, "files[0].sha256: got null, expected text"),
        ("bundle", ("files", 0, "sha256"), "ab", 'files[0].sha256: got "ab", expected 64 hexadecimal digits'),
        ("bundle", ("files", 0, "dtype"), MISSING, "files[0].dtype: got nothing, expected text"),
        ("bundle", ("training",), [], "training: got [], expected an object"),
        ("bundle", ("licence",), 1, "licence: got 1, expected text"),
        ("parity", (), [], "b/parity.json: got [], expected an object"),
        ("parity", ("files",), 1, "files: got 1, expected an object"),
        ("parity", ("files", "model.onnx"), "passed", 'files.model.onnx: got "passed", expected an object'),
        ("parity", ("files", "model.onnx"), {"verdict": "passed"}, "files.model.onnx.n_reads: got nothing"),
        ("parity", (*RECORD, "verdict"), "yes", 'verdict: got "yes", expected one of passed, failed'),
        ("parity", (*RECORD, "label_agreement"), [], "label_agreement: got [], expected a list of numbers"),
        ("parity", (*RECORD, "masked_label_agreement", 0), "1", "expected a list of numbers from 0 to 1"),
        ("parity", (*RECORD, "max_abs_diff"), {}, "max_abs_diff.mask: got nothing, expected a number"),
        ("parity", (*RECORD, "mask_mean_abs_diff"), "0", 'mask_mean_abs_diff: got "0", expected a number'),
        ("parity", ("runtimes", "openvino float32"), None, "runtimes.openvino float32: got null, expected an object"),
        ("parity", ("rows_per_s", "onnx float32"), -1, "rows_per_s.onnx float32: got -1, expected a number"),
    ],
)
def test_what_is_wrong_in_a_bundle_is_named(
    file: str, place: tuple[str | int, ...], value: Any, words: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(bundle / f"{file}.json", place, value)
    assert words in info_refusal(capsys, bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_bundle_that_is_no_json_is_a_message(content: bytes, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("parity.json", "bundle.json"):
        (bundle / name).write_bytes(content)
        assert name in info_refusal(capsys, bundle)


@pytest.mark.parametrize(
    "name",
    ["../outside.onnx", "/etc/hostname", "x/../../outside.onnx", "x\\y", "", ".", "./model.onnx", "x//y", "\ud800"],
)
def test_names_may_not_leave_the_bundle(name: str, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(bundle / "model.onnx", bundle.parent / "outside.onnx")
    change(bundle / "bundle.json", ("files", 0, "path"), name)
    said = info_refusal(capsys, bundle)
    assert f"files[0].path: got {json.dumps(name)}, expected a relative path that stays inside the bundle" in said
    assert "Do not trust this bundle." in said


def test_names_come_once_and_are_looked_up_without_a_crash(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(bundle / "bundle.json", ("files", 1, "path"), "model.onnx")
    assert 'files[1].path: got "model.onnx", expected each path once' in info_refusal(capsys, bundle)
    change(bundle / "bundle.json", ("files", 1, "path"), "x" * 300)
    assert "File name too long" in info_refusal(capsys, bundle)
    with pytest.raises(ModelError, match="File name too long"):
        load_bundle(Path("x" * 300))
    (bundle / "loop").symlink_to("loop")
    change(bundle / "bundle.json", ("files", 1, "path"), "loop")
    assert "b/loop: got 'Too many levels of symbolic links'" in info_refusal(capsys, bundle)


def test_fields_that_old_bundles_lack_may_be_missing(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("training", "metrics", "licence", "tokenizer"):
        change(bundle / "bundle.json", (name,), MISSING)
    change(bundle / "parity.json", ("runtimes",), MISSING)
    change(bundle / "parity.json", ("rows_per_s", "torch float32"), 0.0)  # it could not run
    change(bundle / "parity.json", (*RECORD, "max_abs_diff", "mask"), None)  # it was infinite
    whole, starter = load_bundle(bundle), load_bundle()
    assert (whole.ranks, whole.files) == (starter.ranks, starter.files)
    assert whole.verified("onnx", "float32") == bundle / "model.onnx"
    assert "torch float32" not in whole.rows_per_s
    assert main(["info", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parity"]["model.onnx"]["mask_max"] is None
    (bundle / "parity.json").unlink()
    assert load_bundle(bundle).rows_per_s == {}


def test_text_is_utf8_whatever_the_locale(bundle: Path) -> None:
    content = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    content["ranks"][2]["name"] = "Gattung ä 属"
    (bundle / "bundle.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for encoding in ("ascii", "latin-1", "utf-8"):
        done = subprocess.run(
            [*WYR_BATCH, "info", str(bundle), "--json"],
            capture_output=True,
            env={**environment, "PYTHONIOENCODING": encoding},
        )
        assert done.returncode == 0, done.stderr
        assert list(json.loads(done.stdout)["ranks"]) == ["superkingdom", "phylum", "Gattung ä 属"]


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=()), max_size=5) | st.sampled_from(["..", "/", "mean", "a" * 64])


def json_values() -> st.SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3), max_leaves=6
    )


def places(content: Any, depth: int = 4) -> list[tuple[str | int, ...]]:
    """Return where every value is, the whole of it and the first two of each list among them."""
    inner: list[tuple[str | int, Any]] = []
    if depth and isinstance(content, dict):
        inner = list(content.items())
    elif depth and isinstance(content, list):
        inner = list(enumerate(content[:2]))
    return [(), *((key, *place) for key, value in inner for place in places(value, depth - 1))]


@pytest.mark.parametrize("name", ["bundle.json", "parity.json"])
def test_any_value_anywhere_loads_or_is_a_model_error(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for file in ("bundle.json", "parity.json"):
            shutil.copy(starter_path() / file, folder)
        path = Path(folder) / name
        good = path.read_bytes()
        content = {**json.loads(good), "training": {}, "metrics": {}} if name == "bundle.json" else json.loads(good)

        @settings(deadline=None, max_examples=300, database=None)
        @given(st.sampled_from(places(content)), json_values())
        def check(place: tuple[str | int, ...], value: Any) -> None:
            path.write_bytes(good)
            change(path, place, value)
            with suppress(ModelError):
                bundle = load_bundle(Path(folder))
                assert isinstance(bundle, Bundle)
                assert bundle.is_proven("openvino", "float32") in (True, False)
                assert all(speed > 0 for speed in bundle.rows_per_s.values())

        check()


PROOF = {"key": {"a": 1}, "record": {"verdict": "passed", "failures": []}, "rows_per_s": 2.0}


def test_cached_proof_of_another_shape_is_none(tmp_path: Path) -> None:
    path = tmp_path / "proof.json"
    assert read_proof(path, {"a": 1}) is None
    path.write_text(json.dumps(PROOF))
    found = read_proof(path, {"a": 1})
    assert found is not None
    assert (found.passed, found.rows_per_s) == (True, 2.0)
    assert read_proof(path, {"a": 2}) is None
    for place, value in (
        ((), []),
        (("record",), "passed"),
        (("record", "verdict"), 1),
        (("record", "failures"), "none"),
        (("rows_per_s",), None),
    ):
        path.write_text(json.dumps(PROOF))
        change(path, place, value)
        assert read_proof(path, {"a": 1}) is None


@pytest.mark.parametrize("sidecar", [b"[]", b'{"key": []}', b'{"key": {"a": 1}}', b"\xff", b"[" * 100_000])
def test_cached_plan_with_another_sidecar_is_built_again(
    sidecar: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WYR_CACHE", str(tmp_path / "cache"))
    plan = cache.save_plan("toy", {"a": 1}, b"plan", {})
    assert plan.parent.stat().st_mode & 0o777 == 0o700
    assert cache.find_plan("toy", {"a": 1}) == (b"plan", "")
    plan.with_suffix(".json").write_bytes(sidecar)
    found, why = cache.find_plan("toy", {"a": 1})
    assert found is None
    assert why


@pytest.mark.parametrize("content", ["[]", '{"n": NaN}', '{"n": -Infinity}', "{", ""])
def test_metrics_are_an_object_of_finite_numbers(content: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"n": 1, "tradeoff": []}')
    assert read_metrics(path) == {"n": 1}
    path.write_text(content)
    with pytest.raises(UsageError, match=r"metrics\.json: got .*--metrics"):
        read_metrics(path)
    with pytest.raises(UsageError, match=r"nonsuch: got 'No such file"):
        read_metrics(tmp_path / "nonsuch")
