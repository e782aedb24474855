"""Triton kernels against torch: in Triton's interpreter on the CPU, and compiled where there is a GPU."""

from __future__ import annotations

import ast
import copy
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from toy_models import MAX_TOKENS, predicted, silent_explainer, token_batch, toy_explainer, toy_explanandum

from wyr_batch.engines.torch import _switches
from wyr_batch.kernels import choose, plain, steps
from wyr_batch.models.fused import Fused, FusedOutput
from wyr_batch.models.gpu.fused import GpuFused

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HALVES = [torch.float32, torch.float16, torch.bfloat16]
# Rows and tokens: sizes that no block divides, one token, the longest row (once: the interpreter is slow).
CASES = [(*shape, dtype) for shape in ((3, 7), (1, 1)) for dtype in HALVES] + [(1, 2048, torch.float32)]
# Kernels with products are for halves. The interpreter takes the bits of bfloat16 for whole numbers in products.
PRODUCTS = [case for case in CASES if case[2] == torch.float16 or (case[2].itemsize == 2 and DEVICE.type == "cuda")]


def let_the_interpreter_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter took int() of arrays of one number before 3.7; NumPy 2.4 refuses (triton issue 9171)."""
    from triton.runtime import interpreter

    def patch(tensor: Any, scope: Any) -> None:
        given(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    given = interpreter._patch_lang_tensor
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    triton = pytest.importorskip("triton", reason="Triton is not installed: pip install triton (286 MB)")
    from wyr_batch.kernels import attention, bilstm, rowwise, swiglu

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7):
        let_the_interpreter_count(monkeypatch)
    return {"attention": attention, "bilstm": bilstm, "rowwise": rowwise, "swiglu": swiglu}


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> Iterator[None]:
    choose.forget()
    yield
    choose.forget()


@pytest.fixture(autouse=True)
def float32_as_engines_have_it() -> Iterator[None]:
    """TF32 is off, also in cuDNN's LSTM, which is the reference."""
    with _switches.held(torch):
        yield


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def assert_near(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == wanted.dtype
    limit = choose.LIMITS[dtype] * float(wanted.abs().max().clamp(min=1))
    torch.testing.assert_close(found, wanted, atol=limit, rtol=0)


@pytest.mark.parametrize(("rows", "n_tokens", "dtype"), CASES)
def test_add_and_norm(kernels: dict[str, ModuleType], rows: int, n_tokens: int, dtype: torch.dtype) -> None:
    width = 24
    residual, update = normal(rows, n_tokens, width), normal(rows, n_tokens, width, dtype=dtype, seed=1)
    residual[0, -1] = 0  # as a mask of exact zeros leaves it: the layer norm's bias comes out
    update[0, -1] = 0
    before = residual.clone()
    arguments = residual, update, some_norm(width), dtype
    found, wanted = kernels["rowwise"].add_norm(*arguments), plain.add_norm(*arguments)
    assert torch.equal(found[0], wanted[0])
    assert_near(found[1], wanted[1], dtype)
    assert_near(found[1][0, -1], some_norm(width).bias.to(dtype), dtype)
    assert torch.equal(residual, before)


def some_norm(width: int) -> plain.Norm:
    return plain.Norm(normal(width, seed=2), normal(width, seed=3), 1e-12)


@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
@pytest.mark.parametrize(("rows", "n_tokens", "dtype"), CASES[:-1])
def test_embed_and_norm(
    kernels: dict[str, ModuleType], rows: int, n_tokens: int, dtype: torch.dtype, masked: bool
) -> None:
    width, pad_id = 24, 1
    ids = torch.randint(2, 9, (rows, n_tokens), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    ids[-1, n_tokens // 2 :] = pad_id
    mask = normal(rows, n_tokens).abs()
    mask[0, -1] = 0
    arguments = ids.to(DEVICE), normal(9, width), pad_id, mask if masked else None, some_norm(width), dtype
    found, wanted = kernels["rowwise"].embed_norm(*arguments), plain.embed_norm(*arguments)
    assert torch.equal(found[0], wanted[0])
    assert_near(found[1], wanted[1], dtype)
    assert (found[0][-1, n_tokens // 2 :] == 0).all()
    assert not masked or (found[0][0, -1] == 0).all()


@pytest.mark.parametrize(("rows", "n_tokens", "dtype"), CASES)
def test_rotary(kernels: dict[str, ModuleType], rows: int, n_tokens: int, dtype: torch.dtype) -> None:
    packed = normal(rows, n_tokens, 3, 3, 6, dtype=dtype)
    angles = torch.arange(n_tokens)[:, None] * torch.tensor([1.0, 0.1, 0.01])
    cos, sin = angles.cos().to(DEVICE), angles.sin().to(DEVICE)
    found, wanted = packed.clone(), packed.clone()
    kernels["rowwise"].rotate(found, cos, sin)
    plain.rotate(wanted, cos, sin)
    assert_near(found, wanted, dtype)
    assert torch.equal(found[:, :, 2], packed[:, :, 2]), "values are left alone"
    assert torch.equal(found[:, 0], packed[:, 0])


@pytest.mark.parametrize(("head_size", "lengths"), [(32, [40, 33, 1]), (32, [33] * 2), (12, [7, 3]), (40, [70, 1])])
@pytest.mark.parametrize("dtype", sorted({case[2] for case in PRODUCTS}, key=str))
def test_attention(kernels: dict[str, ModuleType], head_size: int, lengths: list[int], dtype: torch.dtype) -> None:
    n_tokens, n_heads = max(lengths), 2
    packed = normal(len(lengths), n_tokens, 3, n_heads, head_size, dtype=dtype)
    packed[0, 0] = 0
    angles = torch.arange(n_tokens)[:, None] * torch.logspace(0, -3, head_size // 2)
    cos, sin = angles.cos().to(DEVICE), angles.sin().to(DEVICE)
    valid = torch.arange(n_tokens, device=DEVICE) < torch.tensor(lengths, device=DEVICE)[:, None]
    padding = None if valid.all() else plain.Padding.of(valid)
    wanted = plain.attend(packed.float(), cos, sin, padding).to(dtype)
    for tile in kernels["attention"].TILES:
        found = kernels["attention"].attend(packed, cos, sin, padding, tile)
        assert_near(found[valid], wanted[valid], dtype)
        assert found.isfinite().all(), "what stands at padding goes on through the layers"


@pytest.mark.parametrize(("rows", "n_tokens", "dtype"), PRODUCTS)
def test_swiglu(kernels: dict[str, ModuleType], rows: int, n_tokens: int, dtype: torch.dtype) -> None:
    x, weight = normal(rows, n_tokens, 40, dtype=dtype), normal(2 * 24, 40, dtype=dtype, seed=1) * 0.2
    x[0, 0] = 0
    wanted = plain.swiglu(x, weight)
    for tile in kernels["swiglu"].TILES:
        found = kernels["swiglu"].swiglu(x, weight, tile)
        assert_near(found, wanted, dtype)
        assert (found[0, 0] == 0).all()


def ragged_ids(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(token_batch(lengths)).to(DEVICE)
    return ids, ids != 1


@pytest.mark.parametrize(
    ("lengths", "num_layers", "cell_states"),
    [
        ([9, 3, 1, 9, 6], 2, True),
        ([9, 3, 1, 9, 6], 3, False),
        ([7] * 5, 2, True),
        ([*range(20, 3, -1)], 1, True),
        ([1], 2, True),
        ([2048, 5], 1, True),
    ],
    ids=["ragged", "no cells", "no padding", "more rows than a program has", "one token", "2,048 tokens"],
)
def test_bilstm(kernels: dict[str, ModuleType], lengths: list[int], num_layers: int, cell_states: bool) -> None:
    explainer = copy.deepcopy(toy_explainer(num_layers, cell_states)).to(DEVICE)
    ids, valid = ragged_ids(lengths)
    with torch.inference_mode():
        wanted, found = explainer.features(ids, valid), explainer.features_by_kernel(ids, valid)
    torch.testing.assert_close(found[valid], wanted[valid], atol=2e-6, rtol=0)
    assert (found[~valid] == 0).all()


@pytest.mark.parametrize("module", ["attention", "bilstm", "rowwise", "swiglu"])
def test_a_kernel_is_compiled_once_whatever_the_sizes_of_a_batch(module: str) -> None:
    """Triton compiles anew for a whole number that is 1 or a multiple of 16, seconds each, unless it is told not to."""
    tree = ast.parse((Path(choose.__file__).parent / f"{module}.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel")]
    assert functions
    for function in functions:
        sizes = {a.arg for a in function.args.args if a.arg.startswith("n_") and a.annotation is None}
        told = {
            text.value for each in function.decorator_list for text in ast.walk(each) if isinstance(text, ast.Constant)
        }
        assert sizes == told, function.name


class Launches:
    """In a kernel's place: says how many programs would have been launched."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.grids.append(grid)
        return lambda *_, **__: None


def test_batches_of_very_many_short_reads_fit_the_grid(
    kernels: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second and third axes of CUDA's grid end at 65,535."""
    rows, n_tokens, n_heads, launches = 140_000, 1, 16, Launches()
    for module, names in {
        "attention": ["_attend_kernel"],
        "bilstm": ["_bilstm_kernel"],
        "rowwise": ["_add_norm_kernel", "_embed_norm_kernel", "_rotate_kernel"],
    }.items():
        for name in names:
            monkeypatch.setattr(kernels[module], name, launches)
    with torch.device("meta"):
        norm = plain.Norm(torch.ones(8), torch.ones(8), 1e-12)
        packed, table = torch.ones(rows, n_tokens, 3, n_heads, 32), torch.ones(n_tokens, 16)
        kernels["attention"].attend(packed, table, table, None)
        kernels["rowwise"].rotate(packed, table, table)
        kernels["rowwise"].add_norm(torch.ones(rows, n_tokens, 8), torch.ones(rows, n_tokens, 8), norm, torch.float16)
        ids, lengths = torch.ones(rows, n_tokens, dtype=torch.int32), torch.ones(rows, dtype=torch.int32)
        kernels["rowwise"].embed_norm(ids, torch.ones(9, 8), 1, None, norm, torch.float16)
        kernels["bilstm"].bilstm(torch.ones(9, 2, 4, 40), lengths, torch.ones(2, 4, 40, 40), ids)
    assert len(launches.grids) == 5
    for first, *others in launches.grids:
        assert first < 2**31
        assert all(n <= 65_535 for n in others)


def test_ways_are_compared_on_ids_as_engines_give_them(
    kernels: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton compiles anew for numbers of another type, so what was compared would not be what runs."""
    seen: dict[str, set[torch.dtype]] = {}

    def fastest(name: str, ways: dict[str, Any], cases: list[tuple[Any, ...]], *_: Any) -> str:
        found = seen.setdefault(name, set())
        found |= {x.dtype for case in cases for x in case if isinstance(x, torch.Tensor)}
        return list(ways)[-1]

    for module in ("choose", "steps"):
        monkeypatch.setattr(f"wyr_batch.kernels.{module}.fastest", fastest)
    monkeypatch.setattr("wyr_batch.models.gpu.fused.fastest", fastest)
    module = GpuFused(toy_explanandum(), toy_explainer(), torch.float32, MAX_TOKENS).to(DEVICE)
    module.choose_ways(None, True, later_is_faster(), (2, 12))
    ids = {name: {each for each in dtypes if not each.is_floating_point} for name, dtypes in seen.items()}
    assert ids["embedding and layer norm"] == ids["encoder"] == {torch.int32}
    assert ids["LSTM"] == {torch.int32, torch.bool}


def later_is_slower() -> Callable[[Callable[[], Any]], float]:
    taken = iter(range(1, 1000))
    return lambda work: float(next(taken))


def later_is_faster() -> Callable[[Callable[[], Any]], float]:
    taken = iter(range(1000, 0, -1))
    return lambda work: float(next(taken))


def test_the_fastest_way_that_is_right_is_taken_and_remembered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wyr_batch")
    seconds = {"reference": 3.0, "right": 2.0, "wrong": 1.0, "broken": 0.5, "no number": 0.2, "slow": 9.0}
    running: list[str] = []

    def way(name: str, change: float) -> Callable[[torch.Tensor], torch.Tensor]:
        def run(x: torch.Tensor) -> torch.Tensor:
            running.append(name)
            if name == "broken":
                raise RuntimeError("no kernel image is available")
            return x + change

        return run

    def timer(work: Callable[[], Any]) -> float:
        work()
        return seconds[running[-1]]

    changes = {"reference": 0, "right": 1e-7, "wrong": 1e-2, "broken": 0, "no number": float("nan"), "slow": 0}
    ways = {name: way(name, change) for name, change in changes.items()}
    cases = [(torch.ones(3),), (torch.ones(1),)]
    assert choose.fastest("step", ways, cases, 1e-6, ("a GPU",), timer) == "right"
    assert "step: wrong is 0.01 off reference, more than 1e-06: not used" in caplog.text
    assert "step: broken does not work here: RuntimeError: no kernel image is available" in caplog.text
    assert "step: no number is inf off reference" in caplog.text
    assert "step: right, 1.50 times as fast as reference" in caplog.text
    running.clear()
    assert choose.fastest("step", ways, cases, 1e-6, ("a GPU",), timer) == "right"
    assert not running
    seconds["reference"] = 0.1
    assert choose.fastest("step", ways, cases, 1e-6, ("another GPU",), timer) == "reference"


def test_what_memory_did_not_suffice_to_compare_is_compared_again_next_time() -> None:
    free = False

    def other(x: torch.Tensor) -> torch.Tensor:
        if not free:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    ways, cases = {"reference": lambda x: x, "other": other}, [(torch.ones(3),)]
    assert choose.fastest("step", ways, cases, 1e-6, (), later_is_faster()) == "reference"
    free = True
    assert choose.fastest("step", ways, cases, 1e-6, (), later_is_faster()) == "other"
    free = False
    assert choose.fastest("step", ways, cases, 1e-6, (), later_is_faster()) == "other"


def test_one_wrong_case_is_enough_to_be_left_out() -> None:
    ways = {"reference": lambda x: x, "other": lambda x: x if len(x) > 1 else x + 1}
    cases = [(torch.ones(3),), (torch.ones(1),)]
    assert choose.fastest("step", ways, cases, 1e-6, (), later_is_faster()) == "reference"
    assert choose.fastest("step", ways, cases[:1], 1e-6, ("alone",), later_is_faster()) == "other"


def test_kernels_can_be_switched_off_and_need_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "triton_version", lambda: "3.9.0")
    monkeypatch.setitem(sys.modules, "triton", ModuleType("triton"))
    assert choose.wanted()
    monkeypatch.setenv("WYR_KERNELS", "off")
    assert not choose.wanted()
    monkeypatch.delenv("WYR_KERNELS")
    monkeypatch.setitem(sys.modules, "triton", None)  # there, and cannot be loaded
    assert not choose.wanted()
    monkeypatch.setattr(choose, "triton_version", lambda: None)
    assert not choose.wanted()


def run(module: Fused, lengths: list[int], explain: int = -1, **options: Any) -> FusedOutput:
    ids = torch.from_numpy(token_batch(lengths, seed=1)).to(DEVICE)
    asked = torch.from_numpy(predicted(token_batch(lengths))).to(DEVICE)
    with torch.inference_mode():
        return module(ids, torch.full_like(asked, explain), **options)


@pytest.mark.parametrize("explainer", [toy_explainer, silent_explainer], ids=["masks", "masks of exact zeros"])
def test_whole_models_with_kernels_give_the_references_outputs(
    kernels: dict[str, ModuleType], explainer: Callable[[], Any]
) -> None:
    made = explainer()
    module = GpuFused(toy_explanandum(), made, torch.float32, MAX_TOKENS).to(DEVICE)
    reference = Fused(toy_explanandum(), made).eval().to(DEVICE)
    module.choose_ways(None, True, later_is_faster(), (2, 12))
    assert module.encoder.way.keywords["steps"].add_norm is kernels["rowwise"].add_norm  # type: ignore[attr-defined]
    assert module.explainer.by_kernel
    assert module.ways == {"encoder": "torch with kernels", "Explainer": "triton"}
    explain = 0 if explainer is silent_explainer else -1
    for lengths in ([12, 5, 1], [8, 8], [1]):
        found, wanted = run(module, lengths, explain), run(reference, lengths, explain)
        for name in FusedOutput._fields:
            torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=1e-5, rtol=0, msg=name)
        assert (wanted.mask == 0).all() == (explainer is silent_explainer)


def test_slower_kernels_are_not_used(kernels: dict[str, ModuleType]) -> None:
    module = GpuFused(toy_explanandum(), toy_explainer(), torch.float32, MAX_TOKENS).to(DEVICE)
    module.choose_ways(lambda function, dynamic: function, True, later_is_slower(), (2, 12))
    assert module.encoder.way == module.encoder.run_layers
    assert not module.explainer.by_kernel
    assert module.ways == {"encoder": "torch", "Explainer": "torch"}


def test_compiled_layers_are_taken_where_they_are_faster() -> None:
    module = GpuFused(toy_explanandum(), toy_explainer(), torch.float16, MAX_TOKENS).to(DEVICE)
    module.choose_ways(lambda function, dynamic: function, False, later_is_faster(), (2, 12))
    assert type(module.encoder.way).__name__ == "Compiled"
    assert module.ways == {"encoder": "torch.compile", "Explainer": "torch"}
    other = GpuFused(toy_explanandum(), toy_explainer(), torch.float16, MAX_TOKENS).to(DEVICE)
    other.choose_ways(lambda function, dynamic: function, False, later_is_slower(), (2, 12))
    assert type(other.encoder.way).__name__ == "Compiled", "the answer is that of the device, and remembered"


def test_a_wrong_kernel_is_left_out_of_the_encoder(
    kernels: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels["swiglu"], "swiglu", lambda x, weight, tile: plain.swiglu(x, weight) * 1.01)
    chosen = steps.chosen_steps(4, 8, 48, torch.float16, DEVICE, later_is_faster(), (2, 12))
    assert chosen.swiglu is plain.swiglu
    assert chosen.add_norm is kernels["rowwise"].add_norm
    assert chosen.attend.func is kernels["attention"].attend  # type: ignore[attr-defined]


def test_an_old_triton_has_no_swiglu(kernels: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("wyr_batch.kernels.swiglu")
    monkeypatch.setitem(sys.modules, "wyr_batch.kernels.swiglu", None)
    chosen = steps.chosen_steps(4, 8, 48, torch.float16, DEVICE, later_is_faster(), (2, 12))
    assert chosen.swiglu is plain.swiglu
    assert chosen.add_norm is kernels["rowwise"].add_norm


def test_products_in_float32_stay_torchs(kernels: dict[str, ModuleType]) -> None:
    chosen = steps.chosen_steps(4, 8, 48, torch.float32, DEVICE, later_is_faster(), (2, 12))
    assert chosen.swiglu is plain.swiglu
    assert chosen.attend.keywords == {"rotation": kernels["rowwise"].rotate}  # type: ignore[attr-defined]
    assert chosen.embed_norm is kernels["rowwise"].embed_norm
