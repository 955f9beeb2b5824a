"""A budget of MACs: met, never passed, and spent on what matters most."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import compress
from compress.budget import Problem, choose
from compress.budget.amounts import against
from compress.budget.blocks import Block
from compress.budget.meter import macs_meter
from compress.core.budgets import Macs
from compress.core.errors import PlanError, UsageError
from compress.graph.analyse import analyse
from compress.graph.costs import macs
from compress.surgery.cut import dead_of, sizes_after

NETWORKS = ["resnet18", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5", "regnet_y_400mf"]


def built(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Return a torchvision network with random weights, and an input for it."""
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval(), torch.randn(2, 3, 64, 64)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("budget", [0.75, 0.5, 0.35])
def test_the_budget_is_met_within_one_percent(name: str, budget: float) -> None:
    """At arbitrary widths the MACs left are below the budget, by at most 1 % of the original's."""
    module, x = built(name)
    report = compress.slim(module, x, macs=budget, importance="l2", round_to=1, verify=False).report
    left = report.costs_after.macs / report.costs_before.macs
    assert budget - 0.01 <= left <= budget


def test_the_meter_agrees_with_the_graph() -> None:
    """What the meter counts as channels leave is what the graph counts for the cut."""
    module, x = built("mobilenet_v3_small")
    analysis = analyse(module, (x,))
    meter = macs_meter(analysis)
    gone = []
    for group in analysis.prunable[::2]:
        channels = group.labels[: group.size // 3]
        expected = meter.saving(channels)
        assert meter.remove(channels) == expected > 0
        gone.append(channels)
    dead = dead_of(analysis, torch.cat([torch.from_numpy(g) for g in gone]).numpy())
    assert meter.total // meter.per == macs(analysis.traces[0], sizes_after(analysis, dead))


def test_putting_back_restores_the_count() -> None:
    """Asking what a block would save changes nothing."""
    module, x = built("resnet18")
    analysis = analyse(module, (x,))
    meter = macs_meter(analysis)
    total, costs = meter.total, list(meter.costs)
    assert meter.saving(analysis.prunable[0].labels[:5]) > 0
    assert (meter.total, meter.costs) == (total, costs)


def test_what_is_cheap_to_lose_and_dear_to_keep_goes_first() -> None:
    """Of two layers with equal scales the one whose channels cost more MACs is cut, the other is left alone."""

    def layer(width: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out)]

    net = nn.Sequential(*layer(8, 16), *layer(16, 8), nn.MaxPool2d(8), *layer(8, 16), *layer(16, 8))
    for part in net:
        if isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.weight, 0.5)
    result = compress.slim(net.eval(), torch.randn(2, 8, 32, 32), macs=0.5, importance="bn", round_to=1)
    assert result.model[0].out_channels < 16
    assert result.model[5].out_channels == 16


def test_without_inputs_no_layer_stays_whole_while_its_neighbours_go() -> None:
    """Where scores rank within groups only, all lose much the same share: linear layers too, wide as they are.

    Their scores vary less than those of narrow layers, as norms of longer vectors do; that must not spare them.
    """
    with torch.device("meta"):
        module, x = torchvision.models.vgg11_bn().eval(), torch.randn(1, 3, 224, 224)
    analysis = analyse(module, (x,))
    random = np.random.default_rng(0)
    scores = {g.name: 1 + random.normal(size=g.size) / np.sqrt(9 * g.size) for g in analysis.prunable}
    problem = Problem(analysis, analysis.prunable, {name: each / each.mean() for name, each in scores.items()})
    gone = set(choose(Macs(0.5), problem).channels.tolist())
    left = {g.name: 1 - len(gone & set(g.labels.tolist())) / g.size for g in problem.free}
    assert all(0.65 < share < 0.85 for share in left.values()), left


def test_what_has_left_counts_against_what_stays() -> None:
    """Of scores 1, 2, 3 (T = 6) the lost is worth T (T / K - 1): 1.2 with the first gone, 6 with two."""
    blocks = [Block(0, np.array([0]), 1.0), Block(0, np.array([1]), 2.0)]
    assert [block.score for block in against(blocks, 6.0)] == pytest.approx([1.2, 4.8])


def test_a_number_of_macs_is_a_number() -> None:
    """A budget above 1 counts MACs of one input."""
    module, x = built("resnet18")
    report = compress.slim(module, x, macs=60e6, importance="l2", round_to=1, verify=False).report
    assert 59e6 <= report.costs_after.macs <= 60e6
    assert report.cut.budget == {"macs": {"left": 60e6}}


def test_a_budget_that_cannot_be_met_says_what_can() -> None:
    """Too small a budget names the least that can be reached; too large a one has nothing to do."""
    module, x = built("resnet18")
    with pytest.raises(PlanError, match="cannot be met: at least"):
        compress.slim(module, x, macs=0.01, importance="l2", keep=["layer4*"])
    with pytest.raises(PlanError, match="nothing has to leave"):
        compress.slim(module, x, macs=1.0, importance="l2")
    with pytest.raises(UsageError, match="--percent and --macs exclude"):
        compress.slim(module, x, 0.5, macs=0.5)
    with pytest.raises(UsageError, match="positive"):
        compress.slim(module, x, macs=0.0)
