"""Cuts in steps, and the search for the smallest network within a bound."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from typer.testing import CliRunner

import compress
from compress.budget.schedule import Way, part_of
from compress.budget.search import BELOW, CLOSE, MILDEST, TRIES, Tried, _next, search
from compress.cli import app
from compress.core.bounds import MaxDrop, bound_of, seconds_of
from compress.core.budgets import Budget, Macs, Percent
from compress.core.errors import PlanError, UsageError
from compress.core.types import Group, Search, StageResult, Step, Trial
from compress.evaluation.metrics import agreement
from compress.evaluation.stages import learned
from compress.export import export
from compress.graph.analyse import analyse
from compress.importance import CRITERIA, Weights
from compress.recovery.closeness import distance
from compress.report.jsonfile import to_json
from compress.report.terminal import show
from tests.test_report import REPORT
from tests.zoo.harness import Net

Curve = Callable[[float], float]


def network(times: int = 1) -> nn.Module:
    """Return a small convolutional network with random weights, so many times as wide."""
    torch.manual_seed(0)

    def forward(n: nn.Module, x: Tensor) -> Tensor:
        y = n.bn(n.a(x)).relu()
        return n.head((y + n.c(n.b(y).relu())).relu().mean((2, 3)))

    net = Net(
        forward,
        a=nn.Conv2d(1, 24 * times, 3, padding=1),
        bn=nn.BatchNorm2d(24 * times),
        b=nn.Conv2d(24 * times, 40 * times, 3, padding=1),
        c=nn.Conv2d(40 * times, 24 * times, 3, padding=1),
        head=nn.Linear(24 * times, 4),
    )
    return net.eval()


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network that tells which quarter of an image is bright, with 600 images and their labels."""
    net = network()
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 4
    images = torch.randn(600, 1, 8, 8, generator=generator)
    for number, label in enumerate(labels.tolist()):
        images[number, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] *= 2.2
    net.head = nn.Linear(24, 4)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    net.train()
    for step in range(120):
        pick = torch.randint(0, 400, (64,), generator=generator)
        loss = nn.functional.cross_entropy(net(_marked(images[pick])), labels[pick])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        del step
    return net.eval(), _marked(images), labels


def _marked(images: Tensor) -> Tensor:
    """Add where a pixel lies, so that a network without positions can tell quarters apart."""
    ramp = torch.linspace(0, 3, 8)
    return images.abs() * (1 + ramp[:, None] + 4 * (ramp[None, :] > 1.5))


def _searched(curve: Curve, slack: float, **given: float) -> tuple[list[float], list[float], str]:
    """Search over a made-up curve of margins: the shares tried, those that hold, and why it ended."""
    asked: list[float] = []

    def measure(share: float) -> Tried:
        asked.append(share)
        return Tried(share, curve(share))

    ended = search(measure, slack, **given)
    return asked, [share for share in asked if curve(share) >= 0], ended


CURVES: dict[str, tuple[Curve, float]] = {
    # Drop in points of top-1 allowed 1.0; where the curve crosses it is known.
    "soft knee": (lambda s: 1.0 - 0.02 * (1 / s - 1) ** 2, 1 / (1 + math.sqrt(50))),
    "cliff": (lambda s: 1.0 if s >= 0.3 else -60.0, 0.3),
    "steep": (lambda s: 1.0 - 20 * (1 - s), 0.95),
    "line": (lambda s: 1.0 - 2.5 * (1 - s), 0.6),
    "lossless": (lambda s: 1.0 if s >= 0.02 else -9.0, 0.02),
}


@pytest.mark.parametrize("name", CURVES)
def test_the_search_ends_near_the_crossing(name: str) -> None:
    """Within eight cuts the smallest share that holds is found, a few percent above the true crossing at most."""
    curve, crossing = CURVES[name]
    asked, held, _ = _searched(curve, 1.0)
    assert len(asked) <= TRIES
    assert crossing <= min(held) <= crossing * (1.3 if name == "lossless" else 1.1)


@pytest.mark.parametrize(("margin", "below"), [(-0.3, True), (-2.0, False)])
def test_below_a_failure_by_little_is_looked_once_more(margin: float, *, below: bool) -> None:
    """The bracket is narrow: what is a little smaller than a near failure may still hold, than a far one not."""
    known = [Tried(1.0, 1.0), Tried(0.25, 0.6), Tried(0.2, 0.3), Tried(0.197, margin), Tried(0.12, -6.0)]
    share = _next(known, 1e-3, 1.0)
    assert (share == pytest.approx(0.197 / BELOW)) if below else (share is None)


def test_a_curve_that_never_holds_is_tried_at_its_mildest() -> None:
    """Where nothing holds, the mildest cut was among the few that were tried."""
    asked, held, _ = _searched(lambda _: -1.0, 1.0)
    assert not held
    assert max(asked) == MILDEST
    assert len(asked) <= 4


def test_the_search_stops_at_the_budget_of_macs() -> None:
    """A share below the budget is never asked for; where the bound holds there, it is the last."""
    asked, held, ended = _searched(lambda _: 1.0, 1.0, floor=0.37)
    assert (min(asked), min(held)) == (0.37, 0.37)
    assert "the budget of MACs was reached" in ended


def test_the_search_ends_with_its_time() -> None:
    """No cut is begun when there is no time for it."""
    left = [True, True, False]
    asked, _, ended = _searched(lambda s: 1.0 - 2.5 * (1 - s), 1.0, more=lambda: left.pop(0))  # type: ignore[arg-type]
    assert (len(asked), ended) == (2, "the time budget ended")


def test_a_share_that_cannot_be_cut_to_is_the_least() -> None:
    """Where blocks do not go that far, the search goes on above."""
    asked: list[float] = []

    def measure(share: float) -> Tried | None:
        asked.append(share)
        return Tried(share, 1.0) if share >= 0.4 else None

    search(measure, 1.0)
    assert 0.4 <= min(share for share in asked if share >= 0.4) <= 0.4 * 1.1 * CLOSE


@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("given", [{"macs": 0.3}, {"params": 0.3}, {"percent": 0.6}])
def test_steps_end_where_one_cut_does(given: dict[str, float], steps: int) -> None:
    """Several cuts meet the budget as one does, and their one plan gives the same network from the original.

    The network is wide enough for the promise of 1 %: of the 24 channels of the narrow one, one is up to 5 %.
    """
    net, x = network(4), torch.randn(2, 1, 4, 4)
    kwargs = {"importance": "l2", "round_to": 1, **given}
    one = compress.slim(net, x, **kwargs).report
    many = compress.slim(net, x, steps=steps, **kwargs)
    report = many.report
    assert len(report.steps) == steps
    assert all(step.max_relative_error is not None and step.max_relative_error < 1e-6 for step in report.steps)
    macs = [report.costs_before.macs, *(step.macs for step in report.steps)]
    assert macs == sorted(macs, reverse=True)
    assert macs[-1] == report.costs_after.macs
    if "percent" in given:
        assert report.cut.removed == one.cut.removed
    key = "parameters" if "params" in given else "macs"
    if "percent" not in given:
        left = getattr(report.costs_after, key) / getattr(report.costs_before, key)
        assert 0.99 * 0.3 <= left <= 0.3
    again = compress.slim(net, x, plan=many.plan).model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in many.model.state_dict().items())
    assert report.verdict is not None
    assert report.verdict.exact
    assert f"of each of {steps} cuts" in report.verdict.reference


def test_steps_are_a_geometric_series() -> None:
    """Each step leaves the same share of what it finds; the last one is the budget itself."""
    analysis = analyse(network(), (torch.randn(2, 1, 8, 8),))
    parts: list[Budget] = [part_of(Macs(0.25), Way(step, 2, analysis)) for step in (1, 2)]
    assert [part.left for part in parts if isinstance(part, Macs)] == pytest.approx(
        [0.5 * 4 * parts[1].left, parts[1].left]  # type: ignore[attr-defined]
    )
    first = part_of(Percent(0.75), Way(1, 2, analysis))
    second = part_of(Percent(0.75), Way(2, 2, analysis, total=100, gone=50))
    assert (first, round(second.value, 6)) == (Percent(0.5), 0.5)  # type: ignore[attr-defined]


def test_ratios_hold_over_all_steps() -> None:
    """A ratio and the largest ratio are of the original's width, however many cuts there are."""
    net, x = network(), torch.randn(2, 1, 8, 8)
    report = compress.slim(
        net, x, macs=0.3, steps=3, ratio={"b": 0.25}, max_ratio=0.8, importance="l2", round_to=1
    ).report
    rows = {row.name: row.after for row in report.cut.groups}
    assert rows["b"] == 30
    assert rows["a"] >= 24 - int(0.8 * 24)


def test_recovery_follows_every_step(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    """With calibration every step says what the network reached after it, and the last is the result's accuracy."""
    net, images, labels = trained
    report = compress.slim(
        net, images[:2], macs=0.4, steps=2, calibration=images[:300], data=(images[400:], labels[400:]), round_to=1
    ).report
    reached = [step.reached for step in report.steps]
    assert all(stage is not None and stage.accuracy is not None for stage in reached)
    assert report.accuracy_pruned is not None
    assert reached[-1].accuracy.top1 == report.accuracy_pruned.top1  # type: ignore[union-attr]


def test_steps_are_compared_with_the_original(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Agreement and distance after the last of three steps are those from the original, not from the step before."""
    net, images, _ = trained
    inputs = images[:300]
    result = compress.slim(net, images[:2], macs=0.2, steps=3, calibration=inputs, round_to=1)
    aside = inputs[learned(inputs, None, 0)[1]]
    for step in result.report.steps:
        assert step.reached is not None
    last = result.report.steps[-1].reached
    assert last is not None
    assert last.agreement == agreement(result.model, net, aside)
    assert last.distance == pytest.approx(distance(net, result.model, [aside]))


@pytest.mark.parametrize("points", [2.0, 10.0])
def test_the_drop_is_within_the_bound(trained: tuple[nn.Module, Tensor, Tensor], points: float) -> None:
    """On the reported images the result loses at most what was allowed, and no smaller try held."""
    net, images, labels = trained
    result = compress.slim(
        net, images[:2], max_drop=points, calibration=images[:300], data=(images[400:], labels[400:]), round_to=1
    )
    report = result.report
    assert report.search is not None
    assert report.accuracy_original is not None
    assert report.accuracy_pruned is not None
    assert report.accuracy_original.top1 > 0.85
    assert 100 * (report.accuracy_original.top1 - report.accuracy_pruned.top1) <= points + 1e-9
    held = [trial for trial in report.search.trials if trial.holds]
    assert report.costs_after.macs == min(trial.macs for trial in held)
    assert 1 < len(report.search.trials) <= TRIES
    with torch.no_grad():
        right = (result.model(images[400:]).argmax(1) == labels[400:]).double().mean()
    assert float(right) == pytest.approx(report.accuracy_pruned.top1)


def test_agreement_needs_no_labels(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    """The result gives the original's answer on the share of images that was asked for."""
    net, images, _ = trained
    result = compress.slim(net, images[:2], min_agreement=0.95, calibration=images[:300], data=images[400:], round_to=1)
    with torch.no_grad():
        same = (result.model(images[400:]).argmax(1) == net(images[400:]).argmax(1)).double().mean()
    assert float(same) >= 0.95
    assert result.report.search is not None
    assert result.report.search.original == 1.0
    aside = compress.slim(net, images[:2], min_agreement=0.9, calibration=images[:300], round_to=1).report
    assert aside.search is not None
    assert aside.search.on == "60 calibration inputs that recovery did not see"


def test_a_budget_of_macs_ends_the_search(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    """With both, whichever comes first: never below the MACs, and the bound holds."""
    net, images, labels = trained
    report = compress.slim(
        net,
        images[:2],
        macs=0.8,
        max_drop=50.0,
        calibration=images[:300],
        data=(images[400:], labels[400:]),
        round_to=1,
        verify=False,
    ).report
    assert 0.76 <= report.costs_after.macs / report.costs_before.macs <= 0.8
    assert report.search is not None
    assert "the budget of MACs was reached" in report.search.ended


def test_a_bound_that_cannot_be_met_says_what_was_tried(trained: tuple[nn.Module, Tensor, Tensor]) -> None:
    """Without recovery random channels cost accuracy at the mildest cut: the error tells every try."""
    net, images, labels = trained
    with pytest.raises(PlanError, match=r"--max-drop cannot be met .* % of the MACs left: top-1"):
        compress.slim(
            net, images[:2], max_drop=0.0, importance="random", data=(images, labels), round_to=1, ratio={"a": 0.8}
        )


def test_bounds_and_times_are_read() -> None:
    """Points, fractions and durations are checked; two bounds exclude each other."""
    assert (seconds_of("1.5h"), seconds_of("90s"), seconds_of(None)) == (5400.0, 90.0, None)
    assert bound_of(None, None) is None
    assert bound_of(1.0, None) == MaxDrop(1.0)
    for wrong in (
        lambda: seconds_of("soon"),
        lambda: MaxDrop(-1),
        lambda: bound_of(1.0, 0.9),
        lambda: bound_of(None, 2),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_the_size_of_the_file_is_met(tmp_path: Path) -> None:
    """The ONNX file takes at most the asked bytes, and at most 1 % less."""
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)).eval()
    x = torch.randn(2, 64)
    before = export(net, (x,), tmp_path / "before.onnx").bytes
    result = compress.slim(net, x, size=0.5, importance="l2", round_to=1)
    taken = export(result.model, (x,), tmp_path / "after.onnx").bytes
    assert 0.99 * 0.5 * before <= taken <= 0.5 * before
    assert result.report.cut.budget == {"size": {"left": 0.5}}
    with pytest.raises(PlanError, match="nothing has to leave"):
        compress.slim(net, x, size="1GB")


def test_the_paths_are_shown_and_written() -> None:
    """The table and the JSON hold every step and every try, which one was taken, and on which images."""
    trials = tuple(
        Trial(asked=left, left=left, macs=int(1e6 * left), reached=top1, holds=top1 >= 0.9, seconds=2.0)
        for left, top1 in ((0.5, 0.93), (0.25, 0.905), (0.2, 0.85))
    )
    found = Search(bound=str(MaxDrop(1.0)), on="test.npz", original=0.91, least=0.9, trials=trials, ended="x")
    stage = StageResult(name="absorbed", agreement=0.875)
    step = Step(macs=500_000, parameters=3000, max_relative_error=2e-16, reached=stage, seconds=1.0)
    report = replace(REPORT, search=found, steps=(step, replace(step, max_relative_error=None)))
    shown = io.StringIO()
    show(report, Console(file=shown, width=140))
    text = shown.getvalue()
    for words in (
        "at most 1 points of top-1 lost, on test.npz",
        "90.50 %",
        "yes, taken",
        "ended: x",
        "2.0e-16",
    ):
        assert words in text, words
    assert text.count("yes, taken") == 1
    assert "not checked" in text
    assert "same answer 87.50 %" in text
    data = json.loads(to_json(report))
    assert [trial["holds"] for trial in data["search"]["trials"]] == [True, True, False]
    assert (data["steps"][0]["macs"], data["search"]["least"]) == (500_000, 0.9)


def test_steps_inside_a_submodule() -> None:
    """Only the named part is cut, in steps; the one plan says where it belongs, and replays."""
    inner = network()
    inner.head = nn.Identity()
    net = nn.Sequential(inner, nn.Linear(24, 3)).eval()
    x = torch.randn(2, 1, 8, 8)
    many = compress.slim(net, x, macs=0.5, steps=2, submodule="0", importance="l2", round_to=1)
    assert many.plan.submodule == "0"
    assert many.model[1].weight.shape == (3, 24)
    assert many.report.costs_after.macs < 0.55 * many.report.costs_before.macs
    again = compress.slim(net, x, plan=many.plan).model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in many.model.state_dict().items())


def test_plans_take_no_steps() -> None:
    """A plan says itself what leaves."""
    net, x = network(), torch.randn(2, 1, 8, 8)
    plan = compress.slim(net, x, percent=0.5, importance="l2", round_to=1, verify=False).plan
    with pytest.raises(UsageError, match="--steps approaches a budget"):
        compress.slim(net, x, plan=plan, steps=2)


def test_a_search_scores_the_network_once(
    trained: tuple[nn.Module, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every try cuts the same network: its channels are scored at the first one and remembered."""
    net, images, _ = trained
    judge, scored = CRITERIA["wanda"], []

    def counted(group: Group, weights: Weights) -> np.ndarray | None:
        scored.append(group.name)
        return judge.function(group, weights)

    monkeypatch.setitem(CRITERIA._table, "wanda", replace(judge, function=counted))
    given = {"min_agreement": 0.9, "calibration": images[:200], "importance": "wanda", "round_to": 1, "verify": False}
    report = compress.slim(net, images[:2], **given).report
    assert report.search is not None
    assert len(report.search.trials) > 1
    assert sorted(scored) == sorted(row.name for row in report.cut.groups if row.pinned is None)


def test_a_written_file_that_is_too_large_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a small file says of itself takes it beyond a budget that the network alone meets: measured, and told."""
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)).eval()
    torch.export.save(torch.export.export(net, (torch.randn(2, 64),)), "net.pt2")
    asked = ("--size", 20_000, "--importance", "l2", "--round-to", 1, "--no-bench", "--json", "slim.json")
    said = CliRunner().invoke(app, ["slim", "net.pt2", *map(str, asked), "--out", "small.onnx"])
    assert said.exit_code == 0, said.output
    taken = (tmp_path / "small.onnx").stat().st_size
    assert taken > 20_000
    warnings = json.loads((tmp_path / "slim.json").read_text(encoding="utf-8"))["warnings"]
    assert (
        f"missed: small.onnx takes {taken:,} bytes once the network is finished, and 20,000 were asked for" in warnings
    )


@pytest.mark.parametrize("labels", [False, True])
def test_a_fixed_batch_size_holds_a_bound(
    trained: tuple[nn.Module, Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: bool
) -> None:
    """A network that takes batches of 40 only is judged on all 100 images: the share is a number of hundredths."""
    monkeypatch.chdir(tmp_path)
    net, images, wanted = trained
    torch.export.save(torch.export.export(net, (images[:40],)), "net.pt2")
    np.savez("seen.npz", x=images[:300].numpy())
    np.savez("new.npz", x=images[400:500].numpy(), y=wanted[400:500].numpy())
    bound = ("--max-drop", 50, "--macs", 0.7) if labels else ("--min-agreement", 0.5, "--macs", 0.7)
    files = ("--calibration", "seen.npz", "--data", "new.npz", "--json", "slim.json")
    arguments = [*bound, *files, "--no-bench", "--round-to", 1, "--no-verify"]
    result = CliRunner().invoke(app, ["slim", "net.pt2", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "slim.json").read_text(encoding="utf-8"))
    held = [trial["reached"] for trial in told["search"]["trials"] if trial["holds"]]
    assert min(held) >= told["search"]["least"]
    assert all(100 * share == pytest.approx(round(100 * share)) for share in held)
    assert told["accuracy"]["pruned"]["images"] == 100
