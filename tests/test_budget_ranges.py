"""Ranges and exceptions: fractions by glob, a largest fraction, and ranking within a pool of groups only."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

import compress
from compress.budget import Limits, Problem, choose
from compress.budget.isomorphic import topologies
from compress.core.budgets import Macs, Percent
from compress.core.choosing import Scope
from compress.core.errors import PlanError, UsageError
from compress.core.types import Group
from compress.graph.analyse import analyse
from compress.report.types import SlimReport
from tests.test_budget_amounts import judged, left_of, network
from tests.zoo.harness import Net


def resnet() -> tuple[nn.Module, Tensor]:
    """Return a small residual network and an input."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None, num_classes=10).eval(), torch.randn(1, 3, 64, 64)


def transformer() -> tuple[nn.Module, Tensor]:
    """Return a small vision transformer of shapes without values."""
    with torch.device("meta"):
        net = torchvision.models.VisionTransformer(32, 8, num_layers=4, num_heads=8, hidden_dim=256, mlp_dim=512)
        return net.eval(), torch.randn(1, 3, 32, 32)


def lost(report: SlimReport, name: str) -> float:
    """The fraction of the group's channels that left."""
    row = next(row for row in report.cut.groups if row.name == name)
    return 1 - row.after / row.before


def test_ratios_are_met_whatever_the_budget() -> None:
    """A glob's groups lose their own fraction; the budget is met by the others; the last match speaks."""
    module, x = resnet()
    ratio = {"layer3.*": 0.25, "layer3.1.conv1": 0.5, "layer4.0.conv1": 0.0}
    for budget in ({"macs": 0.5}, {"percent": 0.4}):
        report = compress.slim(module, x, **budget, ratio=ratio, importance="l2", round_to=1, verify=False).report
        assert (lost(report, "layer3.0.conv1"), lost(report, "layer3.1.conv1")) == (0.25, 0.5)
        assert (lost(report, "layer3.0.conv2"), lost(report, "layer4.0.conv1")) == (0.25, 0.0)
        assert report.cut.removed > sum(row.before - row.after for row in report.cut.groups if "layer3" in row.name)
        if "macs" in budget:
            assert 0.495 <= report.costs_after.macs / report.costs_before.macs <= 0.5


def test_ratios_alone() -> None:
    """Without a budget nothing but what the globs name loses channels."""
    module, x = resnet()
    report = compress.slim(module, x, ratio={"layer2.1.conv1": 0.3}, round_to=1, verify=False).report
    assert lost(report, "layer2.1.conv1") == 1 - 90 / 128
    assert report.cut.removed == 38


def test_a_ratio_that_names_nothing_is_an_error() -> None:
    """A typo in a glob is told, and so is a fraction that is none."""
    module, x = resnet()
    with pytest.raises(UsageError, match=r"--ratio 'layerr3\.\*' names no channels"):
        compress.slim(module, x, percent=0.5, ratio={"layerr3.*": 0.3})
    with pytest.raises(UsageError, match=r"the fraction must be in \[0, 1\)"):
        compress.slim(module, x, percent=0.5, ratio={"layer3.*": 1.0})
    with pytest.raises(UsageError, match=r"--max-ratio must be in \[0, 1\]"):
        compress.slim(module, x, percent=0.5, max_ratio=1.5)


@pytest.mark.parametrize("round_to", [1, 8])
def test_no_group_loses_more_than_the_largest_ratio(round_to: int) -> None:
    """With a largest fraction every group keeps the rest, and the budget that then cannot be met says what can."""
    module, x = resnet()
    given = {"importance": "bn", "round_to": round_to, "verify": False}
    report = compress.slim(module, x, percent=0.5, max_ratio=0.6, **given).report
    assert max(1 - row.after / row.before for row in report.cut.groups) <= 0.6
    with pytest.raises(PlanError, match="cannot be met: at least"):
        compress.slim(module, x, macs=0.1, max_ratio=0.3, **given)


def test_sizes_before_an_earlier_cut_are_what_fractions_are_of() -> None:
    """Where channels have left before, a ratio counts them, and the largest ratio keeps its share of it."""
    module, x = network("resnet18")
    analysis = analyse(module, (x,))
    group = next(g for g in analysis.prunable if g.name == "layer1.0.conv1")
    limits = Limits(ratios=(("layer1.0.conv1", 0.5),), max_ratio=0.75, sizes={group.name: 96})
    assert (group.size, limits.asked_of(group), limits.least(group)) == (64, 16, 24)


def test_topologies_are_told_apart() -> None:
    """In a vision transformer the blocks' hidden layers are one topology, their heads another, the stream a third."""
    module, x = transformer()
    analysis = analyse(module, (x,))
    groups = analysis.prunable
    kinds = topologies(analysis, groups)
    hidden = {kind for group, kind in zip(groups, kinds, strict=True) if group.name.endswith("mlp.0")}
    heads = {kind for group, kind in zip(groups, kinds, strict=True) if "in_proj" in _names(group) and group.size == 8}
    stream = {kind for group, kind in zip(groups, kinds, strict=True) if group.name == "class_token"}
    assert [len(each) for each in (hidden, heads, stream)] == [1, 1, 1]
    assert len(hidden | heads | stream) == 3


def _names(group: Group) -> str:
    return " ".join(member.parameter for member in group.members)


@pytest.mark.parametrize("scope", [Scope.ISOMORPHIC, Scope.LAYER])
def test_every_pool_loses_the_same_share(scope: Scope) -> None:
    """With a percentage and with MACs alike, each topology (each layer) loses the same share of its channels."""
    module, x = transformer()
    analysis = analyse(module, (x,))
    scored = judged(analysis)
    problem = Problem(analysis, scored.groups, scored.scores, Limits(), scope)
    assert len(problem.pools) == (len(problem.free) if scope is Scope.LAYER else 3)
    for budget in (Percent(0.4), Macs(0.5)):
        channels = set(choose(budget, problem).channels.tolist())
        shares = []
        for pool in problem.pools:
            mine = [label for number in pool for label in problem.free[number].labels.tolist()]
            shares.append((len(channels.intersection(mine)) / len(mine), 1 / len(mine)))
        low, high = max(share - step for share, step in shares), min(share + step for share, step in shares)
        assert low <= high + 0.02, shares
    before, after = left_of(module, analysis, choose(Macs(0.5), problem).channels, Macs(0.5))
    assert 0.495 <= after / before <= 0.5


def test_large_scores_elsewhere_do_not_matter_within_a_topology() -> None:
    """Multiplying the scores of one topology changes nothing under isomorphic scope, and all under global scope."""
    net = Net(
        lambda n, x: n.head(n.bn(n.conv(x).relu()).mean((2, 3))),
        conv=nn.Conv2d(3, 16, 3),
        bn=nn.Conv2d(16, 16, 1),
        head=nn.Linear(16, 4),
    ).eval()
    analysis = analyse(net, (torch.randn(2, 3, 8, 8),))
    groups = analysis.prunable
    assert len(groups) == 2
    plain = judged(analysis).scores
    louder = {name: scores * (100 if name == groups[0].name else 1) for name, scores in plain.items()}
    chosen = {
        (scope, scores is louder): set(
            choose(Percent(0.5), Problem(analysis, groups, scores, Limits(), scope)).channels
        )
        for scope in (Scope.GLOBAL, Scope.ISOMORPHIC)
        for scores in (plain, louder)
    }
    assert chosen[Scope.ISOMORPHIC, False] == chosen[Scope.ISOMORPHIC, True]
    assert len(chosen[Scope.GLOBAL, True] & set(groups[1].labels.tolist())) == 15  # all but the one that has to stay
