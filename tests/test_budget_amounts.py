"""Budgets of things that are counted: MACs, parameters; met within 1 %, never passed, whatever the network."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import compress
from compress.budget import Problem, choose
from compress.budget.meter import macs_meter, params_meter
from compress.core.budgets import Amount, Budget, Macs, Params, amount, asked
from compress.core.errors import PlanError, UsageError
from compress.graph.analyse import Analysis, analyse
from compress.graph.costs import costs
from compress.surgery.cut import dead_of, sizes_after
from tests.zoo.generate import generate

NETWORKS = ["resnet18", "mobilenet_v3_small", "densenet121", "vit_b_16", "swin_t"]


def network(name: str) -> tuple[nn.Module, Tensor]:
    """Return a torchvision network of shapes without values, and an input for it."""
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None).eval(), torch.randn(1, 3, 224, 224)


def judged(analysis: Analysis) -> Problem:
    """Give every channel a random score, of mean 1 in each group."""
    random = np.random.default_rng(0)
    scores = {g.name: random.uniform(size=g.size) for g in analysis.prunable}
    return Problem(analysis, analysis.prunable, {name: each / each.mean() for name, each in scores.items()})


def left_of(module: nn.Module, analysis: Analysis, channels: np.ndarray, budget: Budget) -> tuple[float, float]:
    """What the budget counts, before the channels leave and after: MACs as the graph counts them."""
    dead = dead_of(analysis, channels)
    before, after = costs(module, analysis.traces[0]), costs(module, analysis.traces[0], sizes_after(analysis, dead))
    if isinstance(budget, Macs):
        return before.macs, after.macs
    meter = params_meter(analysis)
    meter.remove(channels)
    return before.parameters, meter.total


@pytest.mark.parametrize("name", NETWORKS)
def test_budgets_are_met_within_one_percent(name: str) -> None:
    """Of MACs and of parameters at most 1 % of the budget stays unspent at arbitrary widths, and none is overspent."""
    module, x = network(name)
    analysis = analyse(module, (x,))
    problem = judged(analysis)
    for budget in (Macs(0.35), Params(0.5)):
        channels = choose(budget, problem).channels
        before, after = left_of(module, analysis, channels, budget)
        assert 0.99 * budget.left <= after / before <= budget.left, (name, budget)


def test_heads_that_leave_with_the_stream_do_not_overshoot() -> None:
    """A vision transformer loses whole heads, 64 channels of its stream each, and still ends within 1 % of the MACs."""
    torch.manual_seed(0)
    shape = {"image_size": 64, "patch_size": 16, "num_heads": 12, "hidden_dim": 768, "mlp_dim": 3072}
    net = torchvision.models.VisionTransformer(num_layers=2, **shape).eval()
    report = compress.slim(net, torch.randn(1, 3, 64, 64), macs=0.35, importance="l2", round_to=1, verify=False).report
    assert report.delivered.startswith("your own class")
    assert "heads leave together with the channels they read" in report.delivered_why
    assert 0.99 * 0.35 <= report.costs_after.macs / report.costs_before.macs <= 0.35


def _least(problem: Problem, kind: type[Amount]) -> float:
    """What is left, as a share, when all leaves but one channel of every group; 1 of a network without any cost."""
    meter = (macs_meter if kind is Macs else params_meter)(problem.analysis)
    start = meter.total
    for group in problem.free:
        meter.remove(group.labels[np.argsort(problem.scores[group.name], kind="stable")[:-1]])
    return meter.total / start if start else 1.0


@pytest.mark.parametrize("kind", [Macs, Params])
@pytest.mark.parametrize("tens", range(4))
def test_no_generated_network_passes_its_budget(tens: int, kind: type[Amount]) -> None:
    """On random networks the budget is never passed, and what stays unspent is told."""
    for number in range(10 * tens, 10 * tens + 10):
        made = generate(Random(number))
        analysis = analyse(made.module, made.example)
        if not analysis.prunable:
            continue
        problem, budget = judged(analysis), kind(0.7)
        if _least(problem, kind) > 0.7:
            with pytest.raises(PlanError, match="cannot be met: at least"):
                choose(budget, problem)
            continue
        choice = choose(budget, problem)
        before, after = left_of(made.module, analysis, choice.channels, budget)
        assert after <= 0.7 * before, (number, made.kinds)
        assert bool(choice.notes) == (after < 0.99 * 0.7 * before), (number, choice.notes)


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_the_meters_agree_with_the_graph(name: str) -> None:
    """What meters count as channels leave is what the cut network has; what comes back is counted back."""
    module, x = network(name)
    analysis = analyse(module, (x,))
    gone = np.concatenate([g.labels[: g.size // 3] for g in analysis.prunable[::2]])
    meters = macs_meter(analysis), params_meter(analysis)
    start = [meter.total for meter in meters]
    assert all(meter.remove(gone) == was - meter.total > 0 for meter, was in zip(meters, start, strict=True))
    after = costs(module, analysis.traces[0], sizes_after(analysis, dead_of(analysis, gone)))
    assert meters[0].total // meters[0].per == after.macs
    assert all(meter.put_back(gone) > 0 for meter in meters)
    assert [meter.total for meter in meters] == start


def test_parameters_are_counted_as_the_cut_network_has_them() -> None:
    """The report's parameters after the cut are those of the module, and at most what was asked for."""
    torch.manual_seed(0)
    module, x = torchvision.models.resnet18(weights=None).eval(), torch.randn(1, 3, 64, 64)
    result = compress.slim(module, x, params="5M", importance="l2", round_to=1, verify=False)
    assert sum(p.numel() for p in result.model.parameters()) == result.report.costs_after.parameters
    assert 4.95e6 <= result.report.costs_after.parameters <= 5e6
    assert result.report.cut.asked == "at most 5,000,000 parameters left"


def test_coarse_blocks_are_told_of() -> None:
    """Where blocks of channels are too coarse for 1 %, a warning says how far below the budget it ends, and why."""
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
    coarse = compress.slim(net, torch.randn(2, 8), macs=0.7, importance="l2", round_to=16).report
    assert coarse.costs_after.macs == 0.5 * coarse.costs_before.macs
    assert "28.6 % below the budget of 358" in coarse.warnings[0]
    assert "with --round-to 1 it ends nearer" in coarse.warnings[0]
    fine = compress.slim(net, torch.randn(2, 8), macs=0.7, importance="l2", round_to=1).report
    assert fine.costs_after.macs == 22 * 16
    assert not any(
        "below the budget" in warning
        for warning in compress.slim(net, torch.randn(2, 8), macs=0.5, importance="l2", round_to=16).report.warnings
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), ("900M", 9e8), ("1.2G", 1.2e9), ("3k", 3e3), ("M", None), ("0", None), ("x", None)],
)
def test_amounts_are_read(text: str, value: float | None) -> None:
    """Fractions and numbers with k, M and G are read; anything else is refused."""
    assert amount(text) == value


def test_one_budget_at_a_time() -> None:
    """Two budgets, or a budget and a plan, exclude each other; a budget has to be positive and finite."""
    with pytest.raises(UsageError, match="--percent and --params exclude each other"):
        asked({"percent": 0.5, "params": 3})
    with pytest.raises(UsageError, match="--macs and --plan exclude each other"):
        asked({"macs": 0.5}, otherwise="--plan")
    with pytest.raises(UsageError, match="--params must be a positive number, got 'inf'"):
        asked({"params": "inf"})
    assert asked({"percent": None}) is None
