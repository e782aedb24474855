"""The proof finds what differs from float32 torch: a weight, a frozen dimension, damage, dependence on padding."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from toy_models import torch_outputs, toy_fused
from wyr_batch.export.proof import torch_runner

from wyr_batch.models.fused import FusedOutput
from wyr_batch.proof.batches import BATCH_SIZES, LENGTHS, edge_batches
from wyr_batch.proof.compare import FLOAT32, Candidate, compare


def judged(candidate: Candidate, **options: Any) -> Any:
    reference = toy_fused()
    slices = reference.explanandum.slices
    return compare(candidate, torch_runner(reference), slices, 70, lengths=(7, 65), batch_sizes=(1, 3), **options)


def test_proof_passes_the_reference_itself_and_reads_count() -> None:
    record = judged(torch_runner(toy_fused()), reads=[[6, 7, 4106], [4102] * 100, []])
    assert (record.verdict, record.failures) == ("passed", ())
    assert (record.lengths, record.batch_sizes) == ((7, 65, 70), (1, 3))
    assert record.n_reads == 3 * (1 + 3 + 3) + 3  # three lengths of 1, 3 and again 3 rows, then the reads
    assert record.label_agreement == record.masked_label_agreement == (1.0, 1.0, 1.0)
    assert record.thresholds == FLOAT32
    assert record.tolerance_needed == max(record.max_abs_diff.values()) < 1e-5
    assert record.versions["torch"] == torch.__version__
    assert json.loads(json.dumps(record.to_json(), allow_nan=False))["n_tokens"] == record.n_tokens


def test_proof_finds_one_changed_weight() -> None:
    module = copy.deepcopy(toy_fused())
    with torch.no_grad():
        module.explainer.head.weight[0] += 0.05
    record = judged(torch_runner(module))
    assert record.verdict == "failed"
    assert record.failures[0].startswith("mask: got a largest difference of")
    assert record.label_agreement == (1.0, 1.0, 1.0)
    assert 1e-5 < record.max_abs_diff["mask"] <= record.tolerance_needed == max(record.max_abs_diff.values())


def test_proof_finds_a_frozen_dimension() -> None:
    def frozen(ids: np.ndarray, explain: np.ndarray) -> Any:
        if ids.shape[1] != 7:
            raise RuntimeError("cannot broadcast 24 by 65\nat node 7")
        return torch_outputs(toy_fused(), ids, explain)

    record = judged(frozen)
    assert record.verdict == "failed"
    assert "batch of 3 x 65 tokens: got RuntimeError: cannot broadcast 24 by 65" in record.failures


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda o: o._replace(mask=o.mask[:, 1:]), "mask float32"),
        (lambda o: o._replace(explained_ids=o.explained_ids.astype(np.int64)), "explained_ids int64"),
        (lambda o: o._replace(mask=o.mask + np.float32(1e-6)), "mask values at padding"),
        (lambda o: o._replace(probs=o.probs * np.float32("nan")), "not finite"),
        (lambda o: o._replace(explained_ids=(o.explained_ids + 1) % 2), "labels of rank 0: got 0.00% agreement"),
    ],
)
def test_proof_finds_damaged_outputs(damage: Callable[[FusedOutput], FusedOutput], words: str) -> None:
    record = judged(lambda ids, explain: damage(torch_outputs(toy_fused(), ids, explain)))
    assert record.verdict == "failed"
    assert any(words in failure for failure in record.failures), record.failures
    json.dumps(record.to_json(), allow_nan=False)


def test_proof_finds_outputs_that_depend_on_padding() -> None:
    def leaky(ids: np.ndarray, explain: np.ndarray) -> Any:
        out = torch_outputs(toy_fused(), ids, explain)
        return out._replace(mask=out.mask * np.float32(1 - 2e-5 * (len(ids) == 1) * (ids[0, 0] == 3)))

    assert any(failure.startswith("padding:") for failure in judged(leaky).failures)


def test_reads_stop_at_the_time_limit_but_never_the_batches_of_every_size() -> None:
    reads, shares, asked = [[6, 7, 4106]] * 9, list[float](), list[tuple[int, ...]]()
    run = torch_runner(toy_fused())

    def watched(ids: np.ndarray, explain: np.ndarray) -> Any:
        asked.append(ids.shape)
        return run(ids, explain)

    record = judged(watched, reads=reads, reads_s=-1.0, show=shares.append)
    assert (record.verdict, record.n_given_reads, record.n_whole_reads) == ("passed", 9, 0)
    assert (record.lengths, record.batch_sizes) == ((7, 65, 70), (1, 3))
    assert {(n_rows, length) for n_rows in (1, 3) for length in (7, 65, 70)} <= set(asked)
    assert record.n_reads == 3 * (1 + 3 + 3)
    assert shares == sorted(shares)
    assert judged(run, reads=reads, show=shares.append).n_whole_reads == 9
    assert shares[-1] == 1


def test_a_way_whose_labels_differ_is_judged_by_all_reads() -> None:
    """Calls are wrong in the batches of every size and right in the reads: the time limit is no excuse."""
    run = torch_runner(toy_fused())

    def wrong_at_first(ids: np.ndarray, explain: np.ndarray) -> Any:
        out = run(ids, explain)
        return (*out[:3], out[3] if len(ids) == 3 and ids.shape[1] == 4 else out[3][:, ::-1].copy(), out[4])

    record = judged(wrong_at_first, reads=[[6, 7, 4106]] * 9, reads_s=-1.0)
    assert (record.verdict, record.n_whole_reads) == ("failed", 9)


@pytest.mark.parametrize("max_tokens", [70, 512, 2048])
def test_every_length_has_a_row_in_company_that_is_run_alone_too(max_tokens: int) -> None:
    edges = edge_batches(None, LENGTHS, BATCH_SIZES, max_tokens)
    for length in {edge.batch.shape[1] for edge in edges}:
        found = [edge for edge in edges if edge.batch.shape[1] == length]
        assert [len(edge.batch) > 1 for edge in found if edge.alone_too] == [True]
        assert [len(edge.batch) > 1 for edge in found if edge.others_too] == [True]
        assert len(found[0].batch) == 1


def test_the_reference_runs_once_for_all_candidates() -> None:
    n_runs, remembered = 0, {}
    run = torch_runner(toy_fused())

    def reference(ids: np.ndarray, explain: np.ndarray) -> Any:
        nonlocal n_runs
        n_runs += 1
        return run(ids, explain)

    def compared(candidate: Candidate = run, **options: Any) -> Any:
        slices, sizes = toy_fused().explanandum.slices, {"lengths": (7, 65), "batch_sizes": (1, 3)}
        return compare(candidate, reference, slices, 70, reads=[[6, 7]] * 4, remembered=remembered, **sizes, **options)

    whole = compared()
    first = n_runs
    assert first == 3 * (2 + 1) + 2
    again, cut = compared(), compared(torch_runner(toy_fused(), False), masked_calls=False, only_size=3)
    assert n_runs == first
    assert again == whole
    assert (cut.verdict, cut.lengths, cut.batch_sizes) == ("passed", (3, 7, 65, 70), (1, 3))
    assert cut.n_reads == 3 * (3 + 3) + 4
    remembered.clear()
    assert compared(reads_s=-1.0).n_whole_reads == 0
    first = n_runs
    assert compared().n_whole_reads == 0, "those that the first had no time for are left out"
    assert n_runs == first
