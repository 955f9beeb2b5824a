"""A budget of latency, with tables and measurements that a test makes up: nothing here is timed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compress.budget import Limits, Problem, choose
from compress.budget.latency import latency_meter, layers_of
from compress.core.budgets import Latency
from compress.core.clock import Clock
from compress.core.errors import UsageError
from compress.core.latency import Grid, LatencyCosts, LatencyTable, Layer, LayerShape
from compress.core.progress import Silent
from compress.core.types import Speedup
from compress.graph.analyse import Analysis, analyse
from compress.measure.latency_costs import costs_of
from compress.measure.layer_store import Device, cache_folder, times_of
from compress.measure.layer_table import probes, step_of, table_of
from compress.measure.layer_times import layer_times
from compress.measure.profile import LayerTime
from compress.pipeline import latency
from compress.pipeline.job import Job, cut_for, settled
from compress.surgery.planned import CutOptions

DEVICE = Device(
    cpu="fake", isa=("avx9",), cores=2, gpu=None, runtime="fake 1", provider="CPUExecutionProvider", threads=1, batch=1
)
# Microseconds of a 3 x 3 convolution of 64 channels at 28 x 28 by output width, measured in onnxruntime 1.32 on a
# machine with AVX-512.
MEASURED = (
    "48 275; 49 358; 50 370; 51 360; 52 369; 53 354; 54 353; 55 364; 56 378; 57 360; 58 361; 59 359; 60 381; 61 363; "
    "62 400; 63 352; 64 363; 65 488; 66 482; 67 504; 68 507; 69 494; 70 498; 71 476; 72 480; 73 471; 74 471; 75 494; "
    "76 501; 77 522; 78 518; 79 474; 80 499; 81 567"
)


def network() -> nn.Sequential:
    """Return three convolutions with batch norms, and a linear head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, stride=2),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 5),
    ).eval()


def analysed() -> Analysis:
    """Return the analysis of the network at 8 x 8."""
    return analyse(network(), (torch.randn(2, 3, 8, 8),))


def table(analysis: Analysis, seconds: Any, step: int = 1) -> LatencyTable:
    """Return a table of the network's layers whose times are `seconds(layer, inputs, outputs)`."""
    grids = {}
    for layer in layers_of(analysis.traces[0], 1):
        shape, inputs, outputs = layer
        ins, outs = tuple(range(1, inputs + 1)), tuple(range(1, outputs + 1))
        grids[layer] = Grid(ins, outs, tuple(tuple(seconds(shape, i, o) for o in outs) for i in ins))
    return LatencyTable(step, grids)


def costs(table: LatencyTable, per_element: float = 0.0) -> LatencyCosts:
    """Return costs that take the table as it is."""
    return LatencyCosts(table=table, whole=1.0, scale=1.0, per_mac=0.0, per_element=per_element, batch=1)


def left(analysis: Analysis, budget: Latency, round_to: int = 1) -> dict[str, int]:
    """Return how many channels of each group stay under the budget, all channels being equally important."""
    groups = analysis.prunable
    scores = {g.name: np.linspace(1.0, 1.001, g.size) for g in groups}
    choice = choose(budget, Problem(analysis, groups, scores, Limits(round_to)))
    gone = set(choice.channels.tolist())
    return {g.name: sum(int(label) not in gone for label in g.labels) for g in groups}


@pytest.mark.parametrize(
    ("text", "expected"), [("0.5", 0.5), ("8ms", 8000.0), ("1.5 ms", 1500.0), ("250us", 250.0), ("0.02s", 20000.0)]
)
def test_a_fraction_or_a_time(text: str, expected: float) -> None:
    """Without a unit it is a fraction, with one a time in microseconds."""
    assert Latency.read(text).left == pytest.approx(expected)


@pytest.mark.parametrize("text", ["8", "0", "-1ms", "ms", "fast", "inf", "1e999ms"])
def test_what_is_no_latency(text: str) -> None:
    """8 what? Times have a unit, fractions are at most 1."""
    with pytest.raises(UsageError, match="fraction in"):
        Latency.read(text)


def test_channels_leave_where_time_is_saved_not_where_macs_are() -> None:
    """A layer whose time does not fall with its width keeps its channels, although its MACs are as many."""
    analysis = analysed()

    def seconds(shape: LayerShape, inputs: int, outputs: int) -> float:
        slow = shape.kind == "conv" and shape.stride == (2, 2)
        return 1e-3 if not slow else 1e-5 * outputs + 0 * inputs

    kept = left(analysis, Latency(0.95, costs(table(analysis, seconds))))
    assert [size for name, size in kept.items() if name.startswith(("0", "3"))] == [32, 32]
    assert next(size for name, size in kept.items() if name.startswith("6")) < 32


def test_the_prediction_meets_the_budget() -> None:
    """With times proportional to MACs half of the time is left, within the blocks' size; and the meter says so."""
    analysis = analysed()
    found = costs(table(analysis, lambda shape, i, o: 1e-9 * i * o * np.prod((*shape.kernel, *shape.size))))
    meter = latency_meter(analysis, found)
    start = meter.total
    groups = analysis.prunable
    scores = {g.name: np.linspace(1.0, 1.001, g.size) for g in groups}
    choice = choose(Latency(0.5, found), Problem(analysis, groups, scores, Limits(1)))
    meter.remove(choice.channels)
    assert 0.47 * start <= meter.total <= 0.5 * start


def test_widths_inside_a_step_cost_what_the_step_costs() -> None:
    """At a step of 16, 17 channels take as long as 32, and 16 less."""
    shape = LayerShape("linear", 1)
    layer: Layer = (shape, 32, 32)
    found = LatencyTable(16, {layer: Grid((32,), (16, 32), ((1.0, 2.0),))})
    assert [found.seconds(layer, 32, width) for width in (16, 17, 31, 32)] == [1.0, 2.0, 2.0, 2.0]
    assert found.seconds((shape, 3, 3), 3, 3) is None


def test_the_step_is_found_in_what_was_measured() -> None:
    """From recorded times of a real runtime comes 16; from times that rise with every channel, none."""
    pairs = (entry.split() for entry in MEASURED.split(";"))
    recorded = {int(width): float(time) for width, time in pairs}
    assert step_of(recorded) == 16
    assert step_of({width: float(width) for width in range(33, 98)}) == 1
    generator = np.random.default_rng(0)
    for step in (4, 8, 32):
        noisy = {w: -(-w // step) * float(np.exp(0.01 * generator.standard_normal())) for w in range(65, 130)}
        assert step_of(noisy) == step


def test_the_step_is_looked_for_where_one_is_much_of_the_time() -> None:
    """Of a layer 960 wide, a step of 16 is under 2 % of the time, as noise is: narrower ones are timed instead."""
    shape = LayerShape("conv", 1, (7, 7), (1, 1), (1, 1), (0, 0), (1, 1))
    widths = [outputs for _, _, outputs in probes((shape, 160, 960))]
    assert (min(widths), max(widths)) == (64, 128)
    assert [outputs for _, _, outputs in probes((shape, 16, 24))] == list(range(1, 25))


def test_nothing_measured_nothing_predicted() -> None:
    """A budget of latency without a table is refused, with what to do."""
    analysis = analysed()
    with pytest.raises(UsageError, match="measured on this device"):
        left(analysis, Latency(0.5))


def test_the_parts_add_up_to_the_whole() -> None:
    """The layers' and the other operators' shares are those of the profile, and their sum is the measured latency."""
    analysis = analysed()
    recorded = analysis.traces[0]

    def time(operator: str, macs: int, seconds: float) -> LayerTime:
        return LayerTime(name="n", operator=operator, seconds=seconds, macs=macs, traffic=1)

    profile = [time("Conv", 10, 3e-3), time("HardSwish", 0, 1e-3)]
    found = costs_of(recorded, table(analysis, lambda *_: 5e-4), profile, whole=8e-3, batch=1)
    meter = latency_meter(analysis, found)
    assert meter.total / meter.per == pytest.approx(8000, rel=1e-6)  # microseconds
    layers = sum(cost for item, cost in zip(meter.items, meter.costs, strict=True) if len(item.values) > 1)
    assert layers / meter.total == pytest.approx(0.75, rel=1e-6)


class Counted:
    """Measures by counting channels, and remembers what it was asked."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.asked: list[Layer] = []

    def __call__(self, layers: Sequence[Layer], **_: object) -> list[float]:
        """Return a second for each pair of channels."""
        self.asked += layers
        return [float(i * o) for _, i, o in layers]


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    """A second network asks for what is missing only; other threads, batch or runtime are another file."""
    shape = LayerShape("conv", 1, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1))
    first = Counted()
    assert times_of([(shape, 3, 4)], DEVICE, first, tmp_path) == {(shape, 3, 4): 12.0}
    second = Counted()
    assert times_of([(shape, 3, 4), (shape, 3, 5)], DEVICE, second, tmp_path)[shape, 3, 4] == 12.0
    assert second.asked == [(shape, 3, 5)]
    others = [{"threads": 2}, {"batch": 8}, {"runtime": "fake 2"}, {"cpu": "other"}, {"isa": ()}]
    keys = {replace(DEVICE, **other).key for other in others}
    assert len(keys | {DEVICE.key}) == len(others) + 1
    third = Counted()
    times_of([(shape, 3, 4)], replace(DEVICE, threads=2), third, tmp_path)
    assert third.asked == [(shape, 3, 4)]


def test_a_spoilt_file_is_measured_anew(tmp_path: Path) -> None:
    """Half a file, or one of another device under this name, is not believed."""
    layer: Layer = (LayerShape("linear", 1), 4, 4)
    times_of([layer], DEVICE, Counted(), tmp_path)
    (path,) = tmp_path.glob("*.json")
    for text in (path.read_text()[:40], path.read_text().replace("fake 1", "fake 0")):
        path.write_text(text)
        again = Counted()
        times_of([layer], DEVICE, again, tmp_path)
        assert again.asked == [layer]


PROCESS = """
import time
from pathlib import Path
from compress.core.latency import LayerShape
from compress.measure.layer_store import Device, times_of

device = Device(cpu="c", isa=(), cores=1, gpu=None, runtime="r", provider="p", threads=1, batch=1)

def measure(layers):
    with open({log!r}, "a") as log:
        log.write(f"begin {{len(layers)}}\\n"); log.flush()
        time.sleep(0.3)
        log.write("end\\n")
    return [float(i) for _, i, _ in layers]

shape = LayerShape("linear", 1)
while not Path({go!r}).exists():
    time.sleep(0.005)
found = times_of([(shape, i, 1) for i in range(1, 5)], device, measure, Path({folder!r}))
print(sum(found.values()))
"""


def test_two_processes_build_the_table_once(tmp_path: Path) -> None:
    """Started together, one measures while the other waits and then reads; both have all times."""
    log, go = tmp_path / "log", tmp_path / "go"
    code = PROCESS.format(log=str(log), go=str(go), folder=str(tmp_path / "cache"))
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    go.touch()
    said = [process.communicate(timeout=120)[0].strip() for process in both]
    assert said == ["10.0", "10.0"]
    assert log.read_text().split("\n")[:-1] == ["begin 4", "end"]
    assert len(list((tmp_path / "cache").glob("*.json"))) == 1


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$XDG_CACHE_HOME/compress where that is set, else ~/.cache/compress."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "compress"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "compress"


def test_a_table_holds_every_layer_at_several_widths(tmp_path: Path) -> None:
    """Widths are multiples of the found step and the layer's own; groups are left out."""
    conv = LayerShape("conv", 1, (8, 8), (1, 1), (1, 1), (0, 0), (1, 1))
    depthwise = replace(conv, kind="depthwise")
    grouped = replace(conv, groups=4)

    def measure(layers: Sequence[Layer], **_: object) -> list[float]:
        return [float(-(-i // 16) * -(-o // 16)) for _, i, o in layers]

    macs = {(conv, 100, 200): 9, (depthwise, 64, 64): 1, (grouped, 64, 64): 2}
    found = table_of(macs, DEVICE, folder=tmp_path, measure=measure)
    assert found.step == 16
    assert set(found.grids) == {(conv, 100, 200), (depthwise, 64, 64)}
    assert found.grids[conv, 100, 200].inputs == (16, 32, 48, 80, 112)
    assert found.grids[conv, 100, 200].outputs == (16, 32, 48, 96, 144, 208)
    assert found.seconds((conv, 100, 200), 81, 97) == pytest.approx(6 * 7.0)
    assert found.seconds((depthwise, 64, 64), 17, 17) == pytest.approx(4.0)


def test_layers_of_every_kind_run_in_onnxruntime() -> None:
    """Strided, dilated, grouped, depthwise, linear: every layer comes back with a time of its own."""
    conv = LayerShape("conv", 2, (9, 9), (3, 3), (2, 2), (1, 1), (1, 1))
    layers: list[Layer] = [
        (conv, 3, 20),
        (replace(conv, dilation=(2, 2), stride=(1, 1)), 16, 16),
        (replace(conv, groups=2), 8, 6),
        (replace(conv, kind="depthwise"), 24, 24),
        (LayerShape("conv", 1, (12,), (5,), (1,), (2,), (1,)), 4, 4),
        (LayerShape("linear", 7), 5, 9),
    ]
    told: list[tuple[int, int]] = []
    found = layer_times(layers, threads=1, progress=lambda done, total: told.append((done, total)))
    assert len(found) == len(layers)
    assert min(found) >= 0
    assert told == [(6, 6)]


def job(budget: Latency, submodule: str | None = None) -> Job:
    """Return the network with what a cut needs; nothing is won back."""
    options = CutOptions(budget=budget, importance="l2", limits=Limits(1), submodule=submodule)
    parts: dict[str, Any] = {"told": Silent(), "clock": Clock(), "look": lambda _: None, "win_back": lambda *_: ()}
    return Job(module=network(), example=(torch.randn(2, 3, 8, 8),), options=options, **parts)


def cut(monkeypatch: pytest.MonkeyPatch, measured: Any, budget: Latency) -> tuple[Any, list[float]]:
    """Cut with a made-up table and measurements `measured(predicted share)`; return the cut and the shares tried."""
    found = costs(table(analysed(), lambda shape, i, o: 1e-9 * i * o * np.prod((*shape.kernel, *shape.size)), step=4))
    tried: list[float] = []

    def against(cut: Any, *_: object) -> Speedup:
        meter = latency_meter(cut.analysis, found)
        start = meter.total
        meter.remove(np.unique(cut.analysis.component[cut.dead]))
        share = meter.total / start
        tried.append(share)
        ratio = measured(share)
        numbers = {"before": 1e-3, "after": ratio * 1e-3, "ratio": ratio, "low": ratio, "high": ratio, "rounds": 15}
        return Speedup(runtime="fake", device="cpu", threads=1, batch=1, **numbers)

    monkeypatch.setattr(latency, "_against", against)
    monkeypatch.setattr(latency, "_measured", lambda budget, *_: replace(budget, costs=found))
    monkeypatch.setattr(latency, "export", lambda *_, **__: None)
    return cut_for(budget, job(budget)), tried


def test_a_prediction_that_is_off_is_corrected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a cut is measured a quarter slower than predicted, the second aims lower and lands on the target."""
    found, tried = cut(monkeypatch, lambda share: 1.25 * share, Latency(0.5))
    assert len(tried) == 2
    assert tried[0] == pytest.approx(0.5, abs=0.02)
    assert 1.25 * tried[1] == pytest.approx(0.5, rel=0.04)
    assert not any("missed" in note for note in found.chosen.notes)


def test_a_missed_target_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A latency that does not follow is tried three times, and told with what was measured and asked."""
    found, tried = cut(monkeypatch, lambda share: 0.7 + 0.01 * share, Latency(0.5))
    assert len(tried) == 3
    assert any("missed: the latency is 0.70" in note and "0.500 was asked" in note for note in found.chosen.notes)


def test_a_time_is_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """600 us of an original that takes 1 ms in the same measurement is a share of 0.6."""
    found, tried = cut(monkeypatch, lambda share: share, Latency(600.0))
    assert len(tried) >= 1
    assert not any("missed" in note for note in found.chosen.notes)


def test_widths_are_multiples_of_the_step_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a step of 4 gives widths of multiples of 4, and the report is told."""
    found, _ = cut(monkeypatch, lambda share: share, Latency(0.5, stepped=True))
    assert found.chosen.step == 4
    widths = [m.out_channels for m in found.delivered.module if isinstance(m, nn.Conv2d)]
    assert all(width % 4 == 0 for width in widths)
    assert min(widths) < 32


@pytest.mark.parametrize("way", [cut_for, settled])
def test_a_part_has_no_latency_of_its_own(way: Any) -> None:
    """--latency with --submodule, and with --steps, is refused."""
    with pytest.raises(UsageError, match="leave one of them out"):
        way(Latency(0.5), job(Latency(0.5), submodule="3"))
