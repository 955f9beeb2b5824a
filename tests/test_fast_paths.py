"""What was made fast gives what the plain way gives, and leaves no mark on the network."""

from __future__ import annotations

import gc
from random import Random

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import nn

from compress.budget import Limits, Problem
from compress.budget.percent import _of_many, _of_one
from compress.core.choosing import Scope
from compress.core.collector import uncollected
from compress.core.members import Members, Slots
from compress.core.types import Group
from compress.graph.analyse import _components, analyse
from compress.graph.couplings import at_first, varies
from compress.graph.trace import trace
from compress.importance.criteria import _power_sums
from compress.surgery.cut import dead_of, kept_indices
from tests.zoo.generate import generate
from tests.zoo.harness import cut_both, leaving_with, randomised


@pytest.mark.parametrize("number", range(4))
def test_components_run_by_run_are_those_label_by_label(number: int) -> None:
    """Uniting whole runs of labels gives the components that uniting every label does, numbered alike."""
    made = generate(Random(number))
    c = analyse(made.module, made.example).couplings
    rows, cols = (np.concatenate(side) for side in zip(*c.ties, strict=True))
    graph = coo_array((np.ones(len(rows)), (rows, cols)), shape=(c.count, c.count))
    assert np.array_equal(_components(c), connected_components(graph, directed=False)[1])


def test_kept_indices_are_those_of_every_dimension() -> None:
    """What stays of each parameter dimension is what its own labels say."""
    made = generate(Random(1))
    analysis = analyse(made.module, made.example)
    dead = dead_of(analysis, np.concatenate([g.labels[::2] for g in analysis.prunable]))
    plain = {
        (name, d): np.flatnonzero(~dead[labels])
        for name, dims in analysis.parameters.items()
        for d, labels in enumerate(dims)
        if labels is not None and dead[labels].any()
    }
    got = {(name, d): kept for name, dims in kept_indices(analysis, dead).items() for d, kept in dims.items()}
    assert got.keys() == plain.keys()
    assert all(np.array_equal(got[key], plain[key]) for key in plain)


@pytest.mark.parametrize("step", [1, 4, 8])
@pytest.mark.parametrize("target", [0, 1, 3, 6, 9, 20])
def test_one_group_alone_is_cut_as_block_by_block(step: int, target: int) -> None:
    """Without looking at the blocks one by one, a group alone in its pool loses the same channels."""
    slots = Slots((("w", 0),), np.array([0]), np.array([13]))
    group = Group(
        "g", Members(slots, np.array([0]), np.zeros((1, 1), int), np.array([13]), np.array([False])), np.arange(13)
    )
    scores = {"g": np.random.default_rng(0).random(13)}
    problem = Problem(None, [group], scores, Limits(round_to=step), Scope.LAYER)  # type: ignore[arg-type]
    plain = _of_many(problem, [0], target)
    assert _of_one(problem, 0, target).tolist() == (np.concatenate(plain).tolist() if plain else [])


@pytest.mark.parametrize("shape", [(4, 6, 3, 2), (200, 300, 1, 1), (1200, 40)])  # small; pointwise; a long sum
def test_small_tensors_are_summed_as_large_ones(shape: tuple[int, ...]) -> None:
    """The short way for small tensors gives the sums of squares of every dimension."""
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for dim in range(len(shape)):
        others = [d for d in range(len(shape)) if d != dim]
        torch.testing.assert_close(_power_sums(tensor, dim, 2), tensor.double().square().sum(others), rtol=1e-5, atol=0)


def test_varies_along_an_axis() -> None:
    """An array varies along an axis where two of its entries there differ, wherever they are."""
    array = np.zeros((2, 3, 4), dtype=np.int64)
    array[1, 2, 3] = 1
    assert [varies(array, axis) for axis in range(3)] == [True] * 3
    assert not varies(np.broadcast_to(np.arange(3)[:, None], (3, 5)), 1)
    assert not varies(np.zeros((0, 2), dtype=np.int64), 1)
    assert array[at_first(1)].shape == (2, 1, 4)


class Inner(nn.Module):
    """Adds one on a line of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add one."""
        return x.add(1)


def test_operators_know_module_and_line_and_hooks_still_run() -> None:
    """A trace names the module and the line of an operator, runs the user's hooks, and takes itself off the network."""
    seen: list[str] = []
    net = nn.Sequential(nn.Linear(3, 3), Inner())
    net[1].register_forward_hook(lambda *_: seen.append("hook"))
    op = trace(net.eval(), (torch.randn(2, 3),)).ops[-1]
    assert op.where.startswith("1 (test_fast_paths.py:")
    assert seen == ["hook"]
    assert all("_compiled_call_impl" not in vars(m) for m in net.modules())


class OneStep(nn.Module):
    """A recurrent layer on a sequence of length one."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Read the last state."""
        return self.head(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("layer", [nn.LSTM(5, 6, batch_first=True), nn.GRU(5, 6, batch_first=True)])
def test_a_recurrent_state_has_one_size_on_a_sequence_of_one_step(layer: nn.Module) -> None:
    """Where only one step is seen, what the layer gives and what it reads of its state still leave together."""
    net = OneStep(layer, 6).eval()
    gone = leaving_with(analyse(net, (torch.randn(2, 1, 5),)), "layer.weight_hh_l0", 1, 2)
    assert gone["layer.weight_hh_l0:1"] == (2,)
    assert gone["head.weight:1"] == (2,)
    outcome = cut_both(randomised(net), (torch.randn(2, 1, 5),), graph=True)
    assert outcome.why_not is None
    assert outcome.worst < 1e-6


class Looking(OneStep):
    """Looks at a value of its input, so that it is traced on real tensors."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Read the last state."""
        return super().forward(x + 1 if x.sum() > 1e6 else x)


def test_a_recurrent_layer_is_as_free_on_real_tensors() -> None:
    """The kernel that a processor has for a whole LSTM hides no channel, and is used again afterwards."""
    example, layer = (torch.randn(2, 4, 5),), nn.LSTM(5, 6, batch_first=True)
    free, seen = (analyse(net(layer, 6).eval(), example) for net in (OneStep, Looking))
    assert (free.traces[0].on_meta, seen.traces[0].on_meta) == (True, False)
    assert leaving_with(seen, "head.weight", 1, 2) == leaving_with(free, "head.weight", 1, 2)
    assert torch.backends.mkldnn.enabled
    assert cut_both(randomised(Looking(layer, 6).eval()), example).worst < 1e-6


def test_the_collector_is_back_whatever_happens() -> None:
    """Work that runs without the garbage collector leaves it as it was, also where it fails or is nested."""
    assert gc.isenabled()
    with uncollected():
        with pytest.raises(ValueError, match="no"), uncollected():
            raise ValueError("no")
        assert not gc.isenabled()
    assert gc.isenabled()
