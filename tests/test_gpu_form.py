"""The models in the form that a GPU computes, here on the CPU: the reference's numbers, by another way."""

from __future__ import annotations

import copy
import logging
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from toy_models import MAX_TOKENS, predicted, ragged, silent_explainer, token_batch, toy_explainer, toy_explanandum

from wyr_batch.kernels import choose
from wyr_batch.kernels.plain import Padding
from wyr_batch.models.explainer import Explainer
from wyr_batch.models.fused import Fused, FusedOutput
from wyr_batch.models.gpu.encoder import GpuEncoder
from wyr_batch.models.gpu.fused import Compiled, GpuFused
from wyr_batch.models.precision import in_precision
from wyr_batch.models.readout import ReadoutConfig, ReadoutExplainer

SHAPES = {
    "ragged": ragged(6, 40),
    "no padding": [24] * 5,
    "one token": [1, 1],
    "one row of one token": [1],
    "one long row": [MAX_TOKENS],
}
LENGTHS = pytest.mark.parametrize("lengths", SHAPES.values(), ids=SHAPES.keys())


def readout_explainer() -> ReadoutExplainer:
    torch.manual_seed(0)
    explainer = ReadoutExplainer(ReadoutConfig(hidden_size=32, num_ranks=3, num_classes=10, width=16)).eval()
    with torch.no_grad():
        explainer.head.weight.normal_()
    return explainer


EXPLAINERS: dict[str, Callable[[], Explainer]] = {
    "lstm": toy_explainer,
    "readout": readout_explainer,
    "zero masks": silent_explainer,
}


def run(module: Fused, ids: np.ndarray, explain: np.ndarray, **options: Any) -> FusedOutput:
    with torch.inference_mode():
        return module(torch.from_numpy(ids), torch.from_numpy(explain), **options)


@LENGTHS
def test_encoder_gives_the_references_hidden_states(lengths: list[int]) -> None:
    reference = toy_explanandum().encoder
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    encoder = GpuEncoder(copy.deepcopy(reference), torch.float32, MAX_TOKENS)
    ids = torch.from_numpy(token_batch(lengths))
    valid = ids != 1
    with torch.inference_mode():
        wanted = reference(ids)[valid]
        padding = Padding.of(valid)
        torch.testing.assert_close(encoder.encode(ids, None, padding)[valid], wanted, atol=1e-5, rtol=0)
        if valid.all():
            torch.testing.assert_close(encoder.encode(ids, None, None)[valid], wanted, atol=1e-5, rtol=0)
        else:
            assert (encoder.encode(ids, None, None)[valid] - wanted).abs().max() > 1e-3, "the mask is needed"
    for name, value in reference.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", EXPLAINERS)
@LENGTHS
def test_fused_gives_the_references_outputs(lengths: list[int], kind: str, pooling: str) -> None:
    """In float64 as well: of a read whose mask is all but 0, float32's roundings alone move the masked call by 5e-5."""
    ids = token_batch(lengths, seed=1)
    explain = predicted(ids)
    if kind == "zero masks":
        explain[:] = 0
    padded = bool((ids[:, -1] == 1).any())
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-6)):
        models = (copy.deepcopy(toy_explanandum(pooling)), copy.deepcopy(EXPLAINERS[kind]()))
        module = GpuFused(*models, dtype, MAX_TOKENS).to(dtype)
        wanted = run(Fused(*models).eval().to(dtype), ids, explain)
        if dtype == torch.float32:
            assert (wanted.mask == 0).all() == (kind == "zero masks")
        for said in {padded, True}:
            found = run(module, ids, explain, padded=said)
            for name in FusedOutput._fields:
                if name == "masked_probs" and dtype == torch.float32 and kind != "zero masks":
                    continue
                torch.testing.assert_close(getattr(found, name), getattr(wanted, name), atol=limit, rtol=0, msg=name)


@pytest.mark.parametrize("kind", EXPLAINERS)
@LENGTHS
def test_without_masked_calls_the_rest_is_the_same(lengths: list[int], kind: str) -> None:
    module = GpuFused(toy_explanandum(), EXPLAINERS[kind](), torch.float32, MAX_TOKENS)
    ids = token_batch(lengths)
    wanted, found = run(module, ids, predicted(ids)), run(module, ids, predicted(ids), masked_calls=False)
    assert found.masked_probs.shape == (len(ids), 0)
    for name in ("mask", "rank_masks", "explained_ids", "probs"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_as_near_to_float32_as_the_cpus(dtype: str) -> None:
    explanandum, explainer = toy_explanandum(), toy_explainer()
    reference = Fused(explanandum, explainer).eval()
    module = GpuFused(explanandum, explainer, getattr(torch, dtype), MAX_TOKENS)
    assert module.encoder.layers[0].packed.weight.dtype == getattr(torch, dtype)
    assert module.encoder.norms[0].weight.dtype == torch.float32
    ids = token_batch([40] * 16, seed=2)
    explain = np.zeros((16, 3), np.int32)
    wanted = run(reference, ids, explain)
    errors = []
    for halved in (in_precision(reference, dtype), module):
        found = run(halved, ids, explain)
        errors.append(float((found.masked_probs - wanted.masked_probs).abs().mean()))
        assert found.mask.dtype == found.probs.dtype == torch.float32
    assert 0 < errors[1] < 2 * errors[0]


def test_the_explainers_own_part_runs_aside_and_is_waited_for_after_the_plain_pass() -> None:
    module = GpuFused(toy_explanandum(), toy_explainer(), torch.float32, MAX_TOKENS)
    done: list[str] = []

    def aside(work: Callable[[], torch.Tensor | None]) -> Callable[[], torch.Tensor | None]:
        result = work()
        done.append("started")

        def wait() -> torch.Tensor | None:
            done.append("waited for")
            return result

        return wait

    encode = module.encoder.encode
    module.encoder.encode = lambda *arguments: (done.append("pass"), encode(*arguments))[1]  # type: ignore[method-assign]
    ids = token_batch([9, 12])
    run(module, ids, predicted(ids), aside=aside)
    assert done == ["started", "pass", "waited for", "pass"]


def test_compiled_layers_are_used_and_left_with_a_message(caplog: pytest.LogCaptureFixture) -> None:
    module = GpuFused(toy_explanandum(), toy_explainer(), torch.float32, MAX_TOKENS)
    ids = token_batch([9, 12])
    wanted = run(module, ids, predicted(ids))
    calls: list[int] = []

    def compiler(function: Callable[..., torch.Tensor], *, dynamic: bool) -> Callable[..., torch.Tensor]:
        assert dynamic

        def compiled(*arguments: Any) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("Cannot find a working triton installation.\nMore of it.")
            return function(*arguments)

        return compiled

    module.encoder.way = Compiled(module.encoder.run_layers, compiler)
    with caplog.at_level(logging.WARNING, "wyr_batch"):
        for _ in range(3):
            found = run(module, ids, predicted(ids))
            torch.testing.assert_close(found.masked_probs, wanted.masked_probs, atol=0, rtol=0)
    assert len(calls) == 3, "after it has failed it is not tried again"
    assert module.ways == {"encoder": "torch, for it did not compile", "Explainer": "torch"}
    (message,) = caplog.messages
    assert message == (
        "torch.compile does not work here (RuntimeError: Cannot find a working triton installation.): going on "
        "without it, more slowly"
    )


def test_ways_through_a_model_of_short_rows_are_timed_on_rows_that_it_takes() -> None:
    for max_tokens in (40, 4):
        module = GpuFused(toy_explanandum(), toy_explainer(), torch.float32, max_tokens)
        choose.forget()
        module.choose_ways(lambda function, dynamic: function, False, partial(next, iter((2.0, 1.0))), (2, 256))
        assert module.ways["encoder"] == "torch.compile"
    choose.forget()


def test_a_compiled_function_out_of_memory_stays_compiled() -> None:
    def fails(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    function = Compiled(lambda input_ids, *_: input_ids, lambda *_, **__: fails)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            function(torch.ones(1, 5), None, None, torch.ones(5, 2), torch.ones(5, 2))


def test_torch_compiles_once_with_a_mask_and_once_without_whatever_the_sizes() -> None:
    module = GpuFused(toy_explanandum(), toy_explainer(), torch.float32, MAX_TOKENS)
    graphs: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    encoder = module.encoder
    encoder.way = Compiled(encoder.run_layers, partial(torch.compile, backend=backend))
    for lengths in ([9, 9, 9], [30] * 5, [7], [1], [40, 3], [11, 2, 5], [5, 1]):
        with torch.inference_mode():
            ids = torch.from_numpy(token_batch(lengths)).clone()
            valid, mask = ids != 1, torch.rand(ids.shape)
            for padding in [Padding.of(valid)] if (~valid).any() else [Padding.of(valid), None]:
                found = encoder.encode(ids, mask, padding)
                n_tokens = ids.shape[1]
                wanted = encoder.run_layers(ids, mask, padding, encoder.cos[:n_tokens], encoder.sin[:n_tokens])
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert len(graphs) == 2


CPU_ONLY = """
import sys
import numpy as np
from wyr_batch.bundle import load_bundle
from wyr_batch.choose import EngineRequest, open_engine

with open_engine(load_bundle(), EngineRequest("cpu", "torch", "float32", 1)) as engine:
    engine.infer(np.array([[3, 7, 8, 9]], np.int32), np.full((1, len(engine.bundle.ranks)), -1, np.int32))
print([name for name in sys.modules if "gpu_" in name or name.startswith(("wyr_batch.kernels", "triton"))])
"""


def test_a_cpu_needs_none_of_this() -> None:
    done = subprocess.run([sys.executable, "-c", CPU_ONLY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
