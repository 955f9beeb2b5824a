"""Random networks: whatever the analysis calls free can leave, and the cut computes the masked original."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compress.core.choosing import Attention
from compress.core.types import Plan
from compress.export.api import export
from compress.surgery.cut import dead_labels
from compress.surgery.module import cut_module
from tests.zoo.generate import ENTRIES, Generated, generate
from tests.zoo.harness import Snapshot, cut_both

QUIET = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
RANDOM = st.randoms(use_true_random=False)


def _prove(made: Generated, seed: int, attention: Attention, *, graph: bool) -> None:
    """Cut at random, compare with the masked original, replay the plan, and find the original as it was."""
    before = Snapshot.of(made.module)
    outcome = cut_both(made.module, made.example, attention=attention, seed=seed, graph=graph)
    told = f"module {outcome.module_error}, graph {outcome.graph_error}, {outcome.why_not}"
    whole = f"{', '.join(made.kinds)}; plan {outcome.plan.to_json()}\n{made.module}"
    assert outcome.worst <= 1e-6, f"{told}; seed {seed}, {attention}\n{whole}"
    assert outcome.module_error is not None or outcome.graph_error is not None
    assert before.same(made.module), made.kinds
    plan = Plan.from_json(outcome.plan.to_json())
    assert plan == outcome.plan
    again = cut_module(made.module, made.example, outcome.analysis, dead_labels(outcome.analysis, plan))
    if outcome.module is not None:
        one, two = outcome.module.state_dict(), again.module.state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one), made.kinds


@settings(QUIET, max_examples=60)
@given(random=RANDOM, seed=st.integers(0, 2**16), attention=st.sampled_from(list(Attention)))
def test_shrinkable_networks(random: Random, seed: int, attention: Attention) -> None:
    """Networks drawn by hypothesis, which shrinks the one that fails."""
    _prove(generate(random), seed, attention, graph=False)


@pytest.mark.parametrize("attention", list(Attention))
@pytest.mark.parametrize("tens", range(25))
def test_numbered_networks(tens: int, attention: Attention) -> None:
    """Ten networks by number, cut by head and by dimension; each compares module or graph, whichever follows."""
    for number in range(10 * tens, 10 * tens + 10):
        _prove(generate(Random(number)), number, attention, graph=False)


@pytest.mark.parametrize("tens", range(4))
def test_rewritten_graphs(tens: int) -> None:
    """The exported graph of ten networks, cut by the module's plan, computes the same."""
    for number in range(1000 + 10 * tens, 1000 + 10 * tens + 10):
        _prove(generate(Random(number)), number, list(Attention)[number % 2], graph=True)


ENTERED = {
    "image": 28, "two images": 10, "image and words": 19, "volume": 31, "signal": 9, "words": 27, "tokens": 22,
    "patches": 5,
}  # fmt: skip


@pytest.mark.parametrize("entry", dict.fromkeys(ENTRIES))
def test_onnx_of_cut_networks(entry: str, tmp_path: Path) -> None:
    """A cut network, one for each kind of input, becomes an ONNX file that computes the same in its own runtime."""
    number = ENTERED[entry]
    made = generate(Random(number))
    assert made.kinds[0] == f"entry: {entry}"
    outcome = cut_both(made.module, made.example, seed=number)
    assert outcome.module is not None, made.kinds
    written = export(outcome.module, made.example, tmp_path / "cut.onnx")
    assert written.max_relative_error <= 1e-4
