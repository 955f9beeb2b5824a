"""Which channels are chosen: criteria on numbers small enough for paper, blocks, percentages; and what they save."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from compress.budget.blocks import Limits, blocks_of
from compress.budget.choice import Choice, Problem, choose
from compress.core.budgets import Percent
from compress.core.choosing import Scope
from compress.core.clock import Clock
from compress.core.errors import PlanError, UsageError
from compress.core.members import Members, Slots
from compress.core.types import Group
from compress.graph.analyse import Analysis, analyse
from compress.graph.costs import costs, macs, norm_scales
from compress.importance import Weights, default_criterion, score
from compress.surgery.cut import dead_labels, plan_of, sizes_after
from compress.surgery.module import cut_module
from compress.surgery.network import cut_network
from compress.surgery.planned import CutOptions
from tests.zoo.cases import CASES
from tests.zoo.harness import Net, randomised


def _chain() -> nn.Module:
    """Two channels between two linear layers and a batch norm, with numbers for paper."""
    net = Net(lambda n, x: n.b(n.bn(n.a(x))), a=nn.Linear(2, 2), bn=nn.BatchNorm1d(2), b=nn.Linear(2, 2)).eval()
    with torch.no_grad():
        net.a.weight.copy_(torch.tensor([[3.0, -4.0], [0.0, 1.0]]))
        net.b.weight.copy_(torch.tensor([[6.0, -2.0], [8.0, 0.0]]))
        net.bn.weight.copy_(torch.tensor([-0.5, 0.25]))
    return net


def _scored(module: nn.Module, example: tuple[torch.Tensor, ...], name: str) -> tuple[Analysis, dict[str, np.ndarray]]:
    analysis = analyse(module, example)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    weights = Weights(tensors, norm_scales(analysis.traces))
    return analysis, dict(score(analysis.prunable, weights, name)[0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # a: 7 and 1, of mean 4; b: 14 and 2, of mean 8: both 1.75 and 0.25.
        ("l1", [1.75, 0.25]),
        # a: 5 and 1, of mean 3; b: 10 and 2, of mean 6: both 5/3 and 1/3.
        ("l2", [5 / 3, 1 / 3]),
        ("bn", [0.5, 0.25]),
    ],
)
def test_criteria(name: str, expected: list[float]) -> None:
    """Scores are what their formulas say."""
    _, scores = _scored(_chain(), (torch.zeros(2, 2),), name)
    assert scores["a"] == pytest.approx(expected)


def test_scale_of_a_layer_does_not_matter() -> None:
    """Magnitudes are relative to the group, so that a layer with large weights is not spared."""
    net = _chain()
    net.a.weight.data.mul_(100)
    for name in ("l1", "l2"):
        assert _scored(net, (torch.zeros(2, 2),), name)[1]["a"].mean() == pytest.approx(1)


def test_dead_weights_score_zero() -> None:
    """A group of zeros is worth nothing, and is not divided by zero."""
    net = _chain()
    for parameter in (net.a.weight, net.b.weight):
        nn.init.zeros_(parameter)
    for name in ("l1", "l2"):
        assert _scored(net, (torch.zeros(2, 2),), name)[1]["a"].tolist() == [0, 0]


def test_default_criterion() -> None:
    """Scales where every group has one, magnitudes otherwise."""
    for case, expected in (("chain", "l2"), ("projected_shortcut", "l2")):
        made = CASES[case]()
        analysis = analyse(made.module, made.example)
        weights = Weights(dict(made.module.named_parameters()), norm_scales(analysis.traces))
        assert default_criterion(analysis.prunable, weights) == expected
    analysis = analyse(_chain(), (torch.zeros(2, 2),))
    weights = Weights(dict(_chain().named_parameters()), norm_scales(analysis.traces))
    assert default_criterion(analysis.prunable, weights) == "bn"


def test_unknown_criterion_names_the_nearest() -> None:
    """A typo is answered with what was meant."""
    with pytest.raises(UsageError, match="did you mean 'l2'"):
        _scored(_chain(), (torch.zeros(2, 2),), "l22")


def test_criterion_without_batch_norm() -> None:
    """Network slimming needs scales."""
    made = CASES["residual"]()
    with pytest.raises(PlanError, match="no BatchNorm"):
        _scored(made.module, made.example, "bn")


def _group(name: str, size: int, first: int, *, width: int = 1, pinned: tuple[str, ...] = ()) -> Group:
    slots = Slots(((f"{name}.weight", 0),), np.array([0]), np.array([size * width]))
    heads, ones = np.arange(size * width).reshape(size, width).T, np.ones(size, dtype=np.int64)
    members = Members(slots, np.zeros(width, dtype=np.int64), heads, ones, np.zeros(width, dtype=bool))
    return Group(name, members, np.arange(first, first + size), pinned)


GROUPS = [_group("a", 20, 100), _group("b.c", 33, 200), _group("b.d", 7, 300), _group("e", 9, 400, pinned=("why",))]
RNG = np.random.default_rng(0)
SCORES = {g.name: RNG.uniform(size=g.size) for g in GROUPS}


def _choice(percent: float, scope: Scope = Scope.GLOBAL, limits: Limits | None = None) -> Choice:
    nothing: Any = None  # a percentage does not look at the graph
    return choose(Percent(percent), Problem(nothing, GROUPS, SCORES, limits or Limits(), scope))


def _chosen(percent: float, scope: Scope = Scope.GLOBAL, limits: Limits | None = None) -> np.ndarray:
    return _choice(percent, scope, limits).channels


def _left(channels: np.ndarray, groups: Sequence[Group] = GROUPS) -> list[int]:
    return [g.size - int(np.isin(g.labels, channels).sum()) for g in groups]


@pytest.mark.parametrize("percent", [0.02, 0.1, 0.3, 0.5, 0.77])
def test_percent_is_exact(percent: float) -> None:
    """Without rounding exactly int(total * percent) channels leave, those with the smallest scores."""
    channels = _chosen(percent)
    free = np.concatenate([SCORES[g.name] for g in GROUPS if g.prunable])
    labels = np.concatenate([g.labels for g in GROUPS if g.prunable])
    assert len(channels) == int(60 * percent)
    assert set(channels.tolist()) == set(labels[np.argsort(free)[: len(channels)]].tolist())


def test_layer_scope_takes_the_same_share_everywhere() -> None:
    """Per layer, each group loses its own share."""
    assert _left(_chosen(0.5, Scope.LAYER)) == [10, 17, 4, 9]


@pytest.mark.parametrize("round_to", [2, 8, 16])
@pytest.mark.parametrize("percent", [0.3, 0.6])
def test_widths_are_multiples(round_to: int, percent: float) -> None:
    """Every width that changed is a multiple, and the total is within half a block of what was asked."""
    channels = _chosen(percent, limits=Limits(round_to=round_to))
    for group, left in zip(GROUPS, _left(channels), strict=True):
        assert left == group.size or left % round_to == 0
        assert left > 0
    assert abs(len(channels) - int(60 * percent)) <= round_to


def test_heads_count_by_their_width() -> None:
    """A channel that is 16 wide is already a multiple of 8; one that is 4 wide leaves in pairs."""
    assert [len(b.channels) for b in blocks_of(0, _group("h", 6, 0, width=16), np.arange(6.0), Limits(8))] == [1] * 5
    assert [len(b.channels) for b in blocks_of(0, _group("h", 6, 0, width=4), np.arange(6.0), Limits(8))] == [2, 2]


@pytest.mark.parametrize("least", [1, 5, 12])
def test_min_channels(least: int) -> None:
    """No group is cut below the minimum, and none is emptied."""
    left = _left(_chosen(0.95, limits=Limits(min_channels=least)))
    for group, count in zip(GROUPS, left, strict=True):
        assert count >= min(least, group.size)


def test_keep_globs() -> None:
    """What a glob names stays whole, by module or by parameter, and does not count."""
    choice = _choice(0.5, limits=Limits(keep=("b.*",)))
    assert (_left(choice.channels), choice.total) == ([10, 33, 7, 9], 20)
    choice = _choice(0.5, limits=Limits(keep=("a.weight",)))
    assert _left(choice.channels)[0] == 20


@pytest.mark.parametrize(
    ("percent", "limits", "words"),
    [
        (0.01, Limits(), "less than one"),
        (0.0, Limits(), "less than one"),
        (0.5, Limits(round_to=64), "multiples of 64"),
        (0.5, Limits(keep=("*",)), "pinned or kept"),
        (0.5, Limits(min_channels=50), "keep 50"),
    ],
)
def test_nothing_to_remove(percent: float, limits: Limits, words: str) -> None:
    """A cut that removes nothing is an error that says why."""
    with pytest.raises(PlanError, match=words):
        _chosen(percent, limits=limits)


@pytest.mark.parametrize("percent", [-0.1, 1.0, 50])
def test_percent_out_of_range(percent: float) -> None:
    """A percentage is a fraction."""
    with pytest.raises(UsageError, match=r"must be in \[0, 1\)"):
        _chosen(percent)


# What PyTorch's counter does not count, or counts otherwise: recurrent layers, operators of torchvision.
UNCOUNTED = (
    "lstm",
    "gru",
    "linear_algebra",
    "fourier",
    "transposed_whole_groups",
    "value_dependent",
    "deformed_kernel",
)
COUNTED = sorted(name for name, build in CASES.items() if name not in UNCOUNTED)


@pytest.mark.parametrize("name", COUNTED)
def test_macs_agree_with_pytorch(name: str) -> None:
    """Twice the MACs are the FLOPs that PyTorch's own counter finds, before the cut and after it."""
    case = CASES[name]()
    module = randomised(case.module)
    analysis = analyse(module, case.example)
    batch = case.example[0].shape[0]
    assert costs(module, analysis.traces[0]).parameters == sum(p.numel() for p in module.parameters())
    assert 2 * batch * macs(analysis.traces[0]) == _flops(module, case.example)
    channels = [int(label) for g in analysis.prunable for label in g.labels[: g.size // 2]]
    if not channels:
        return
    dead = dead_labels(analysis, plan_of(analysis, channels))
    cut = cut_module(module, case.example, analysis, dead)
    if cut.why_not is None:
        assert 2 * batch * macs(analysis.traces[0], sizes_after(analysis, dead)) == _flops(cut.module, case.example)


# PyTorch's counter knows CPU attention, and heads of keys that several queries share, in some versions only; elsewhere
# it counts as the same product does on CUDA.
_UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query, (*query[:2], *key[2:]), (*query[:2], *value[2:])
    )
}


def _flops(module: nn.Module, example: tuple[torch.Tensor, ...]) -> int:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False, custom_mapping=_UNCOUNTED) as counter, torch.no_grad():
            module(*example)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops()


def test_channels_that_only_leave_together_are_told() -> None:
    """Read in three groups, shuffled and unshuffled, all channels of a layer are tied to each other."""

    def run(n: Net, x: torch.Tensor) -> torch.Tensor:
        y = n.stem(x)
        shuffled = y.view(len(y), 3, -1, *y.shape[2:]).transpose(1, 2).flatten(1, 2)
        return n.a(y) + n.b(shuffled)  # type: ignore[no-any-return]

    a, b = (nn.Conv2d(60, 3, 1, groups=3) for _ in range(2))
    options = CutOptions(budget=Percent(0.5), importance="l2")
    with pytest.raises(PlanError, match="leave together or not at all"):
        cut_network(Net(run, stem=nn.Conv2d(3, 60, 1), a=a, b=b).eval(), (torch.randn(2, 3, 5, 5),), options, Clock())
