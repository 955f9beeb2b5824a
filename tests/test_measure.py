"""Ratios come from paired rounds, runners run what they say, and the machine is described. Nothing here is timed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress.core.errors import UsageError
from compress.measure import (
    Runner,
    compare,
    file_bytes,
    kernel_block,
    machine,
    onnxruntime_runner,
    this_machine,
    torch_runner,
)
from compress.measure.latency import interval


class Clock:
    """A clock that only fake runners move."""

    def __init__(self) -> None:
        """Start at an odd time, which must not matter."""
        self.now = 123.0
        self.order: list[str] = []

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def runner(self, label: str, cost: Callable[[int], float], **other: object) -> Runner:
        """Return a runner whose pass number i takes `cost(i)` seconds of this clock."""
        passes = 0

        def run() -> None:
            nonlocal passes
            self.now += cost(passes)
            self.order.append(label)
            passes += 1

        runner = Runner(label=label, run=run, runtime="fake 1", device="cpu", threads=1, batch=1)
        return dataclasses.replace(runner, **other)


def linear(path: Path, shape: list[int | str], kind: int = onnx.TensorProto.FLOAT) -> Path:
    """Write an ONNX file with one input `x` of `shape` that casts it to float32."""
    node = onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.FLOAT)
    x = onnx.helper.make_tensor_value_info("x", kind, shape)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(proto.SerializeToString())
    return path


def test_constant_costs_give_their_ratio() -> None:
    """Two steady networks: the ratio is exact, the interval has no width, seconds are a pass's."""
    clock = Clock()
    found = compare(clock.runner("a", lambda _: 0.5), clock.runner("b", lambda _: 0.125), clock=clock, rounds=10)
    assert (found.before, found.after) == (0.5, 0.125)
    assert (found.ratio, found.low, found.high) == (0.25, 0.25, 0.25)
    assert (found.rounds, found.runtime, found.device, found.threads, found.batch) == (10, "fake 1", "cpu", 1, 1)


def test_a_round_lasts_long_enough_and_the_order_alternates() -> None:
    """Fast passes are repeated until a spell lasts 20 ms, and each network goes first every other round."""
    clock = Clock()
    compare(clock.runner("a", lambda _: 2**-7), clock.runner("b", lambda _: 2**-9), clock=clock, rounds=6)
    warm = ["a"] * 3 + ["b"] * 3
    assert clock.order[:6] == warm
    a, b = ["a"] * 3, ["b"] * 11
    assert clock.order[6:] == (a + b + b + a) * 3


def test_drift_that_hits_both_cancels() -> None:
    """A machine that slows down twentyfold while measuring does not move the ratio."""
    clock = Clock()
    begin = clock.now

    def drifting(base: float) -> Callable[[int], float]:
        return lambda _: base * (1 + (clock.now - begin))

    found = compare(
        clock.runner("a", drifting(0.02)), clock.runner("b", drifting(0.01)), clock=clock, rounds=40, max_seconds=1e9
    )
    assert found.ratio == pytest.approx(0.5, rel=0.03)
    assert found.low <= found.ratio <= found.high


def test_one_slow_round_does_not_count() -> None:
    """The median ignores a pass that something else on the machine delayed."""
    clock = Clock()
    found = compare(
        clock.runner("a", lambda _: 0.5),
        clock.runner("b", lambda i: 60.0 if i == 7 else 0.5),
        clock=clock,
        max_seconds=1e9,
    )
    assert found.ratio == found.low == found.high == 1.0


def test_warm_up_lasts_until_passes_are_steady() -> None:
    """The slow first passes of a cold network are left out of every figure."""
    clock = Clock()
    cold = clock.runner("a", lambda i: 4.0 / (i + 1) if i < 6 else 0.5)
    found = compare(cold, clock.runner("b", lambda _: 0.5), clock=clock, rounds=5, max_seconds=1000.0)
    assert clock.order.index("b") == 9
    assert found.before == found.after == 0.5


def test_the_cap_ends_the_rounds_but_not_before_five() -> None:
    """A slow network is measured in fewer rounds, never in fewer than five."""
    clock = Clock()
    found = compare(clock.runner("a", lambda _: 1.0), clock.runner("b", lambda _: 1.0), clock=clock, max_seconds=20.0)
    assert found.rounds == 8
    clock = Clock()
    found = compare(clock.runner("a", lambda _: 60.0), clock.runner("b", lambda _: 30.0), clock=clock, max_seconds=1.0)
    assert (found.rounds, found.ratio) == (5, 0.5)


def test_a_warm_up_that_never_settles_ends() -> None:
    """Passes that never take equally long do not keep the warm-up going for ever."""
    clock = Clock()
    wild = clock.runner("a", lambda i: 0.001 if i % 2 else 0.002)
    found = compare(wild, clock.runner("b", lambda _: 0.5), clock=clock, rounds=5)
    assert clock.order.index("b") == 50
    assert found.rounds == 5


def test_progress_is_told_every_round() -> None:
    """A progress bar sees every round and the number planned."""
    clock, told = Clock(), []
    compare(
        clock.runner("a", lambda _: 0.5),
        clock.runner("b", lambda _: 0.5),
        clock=clock,
        rounds=5,
        progress=lambda done, planned: told.append((done, planned)),
    )
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_a_device_clock_is_asked_where_there_is_one() -> None:
    """A runner with its own timer is never timed from outside."""

    def forbidden() -> None:
        raise AssertionError("run from outside")

    clock = Clock()
    a = clock.runner("a", lambda _: 1.0, run=forbidden, seconds=lambda count: count * 0.25)
    b = clock.runner("b", lambda _: 1.0, run=forbidden, seconds=lambda count: count * 0.5)
    found = compare(a, b, clock=clock, rounds=5)
    assert (found.before, found.after, found.ratio) == (0.25, 0.5, 2.0)


@pytest.mark.parametrize(("what", "value"), [("runtime", "x"), ("device", "cuda"), ("threads", 2), ("batch", 8)])
def test_apples_are_not_compared_with_pears(what: str, value: object) -> None:
    """Runners that differ in more than the network are refused, with what differs."""
    clock = Clock()
    a, b = clock.runner("first", lambda _: 1.0), clock.runner("second", lambda _: 1.0, **{what: value})
    with pytest.raises(UsageError, match=f"first and second differ in {what}"):
        compare(a, b, clock=clock)


def test_too_few_rounds_are_refused() -> None:
    """An interval from four rounds would mean nothing."""
    clock = Clock()
    with pytest.raises(UsageError, match="4 rounds are too few"):
        compare(clock.runner("a", lambda _: 1.0), clock.runner("b", lambda _: 1.0), clock=clock, rounds=4)


@given(st.lists(st.floats(0.01, 100), min_size=5, max_size=60))
def test_the_interval_holds_the_median_and_stays_within_the_data(ratios: list[float]) -> None:
    """Bootstrap quantiles lie between the extremes, around the median, and are the same every time."""
    data = np.array(ratios)
    low, high = interval(data)
    slack = 1e-12 * data.max()
    assert data.min() - slack <= low <= np.median(data) + slack
    assert np.median(data) - slack <= high <= data.max() + slack
    assert interval(data) == (low, high)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Over 200 noisy samples whose true median is 1, about 95 % of the intervals contain it."""
    generator = np.random.default_rng(1)
    intervals = [interval(np.exp(generator.normal(0, 0.1, 30))) for _ in range(200)]
    assert sum(low <= 1 <= high for low, high in intervals) >= 180


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE", "FLOAT16", "INT64", "UINT8", "BOOL"])
def test_onnxruntime_runs_a_free_batch(kind: str, tmp_path: Path) -> None:
    """A file with a free batch runs at the asked size, whatever its input type."""
    path = linear(tmp_path / "net.onnx", ["batch", 3], getattr(onnx.TensorProto, kind))
    runner = onnxruntime_runner(path, batch=4, threads=1)
    runner.run()
    assert (runner.label, runner.device, runner.threads, runner.batch) == ("net.onnx", "cpu", 1, 4)
    assert onnxruntime.__version__ in runner.runtime
    assert onnxruntime_runner(path).batch == 1


def test_onnxruntime_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    """Missing and damaged files, foreign providers, batch sizes and free image sizes are one sentence each."""
    fixed = linear(tmp_path / "fixed.onnx", [2, 3])
    assert onnxruntime_runner(fixed).batch == 2
    with pytest.raises(UsageError, match="is for batch size 2, not 5"):
        onnxruntime_runner(fixed, batch=5)
    with pytest.raises(UsageError, match="no file"):
        onnxruntime_runner(tmp_path / "nothing.onnx")
    with pytest.raises(UsageError, match="this onnxruntime has no NoSuchProvider"):
        onnxruntime_runner(fixed, provider="NoSuchProvider")
    with pytest.raises(UsageError, match="at least 1"):
        onnxruntime_runner(fixed, threads=0)
    with pytest.raises(UsageError, match="free dimensions"):
        onnxruntime_runner(linear(tmp_path / "free.onnx", ["batch", 3, "height"]))
    with pytest.raises(UsageError, match="type tensor"):
        onnxruntime_runner(linear(tmp_path / "odd.onnx", [1], onnx.TensorProto.UINT64))
    (tmp_path / "damaged.onnx").write_bytes(b"damaged")
    with pytest.raises(UsageError, match="cannot load"):
        onnxruntime_runner(tmp_path / "damaged.onnx")


def test_torch_runner_runs_in_eval_mode_and_leaves_the_module() -> None:
    """A module in training mode is measured as a copy: neither its mode nor its statistics move."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = module[1].running_mean.clone()
    runner = torch_runner(module, (torch.randn(2, 3, 8, 8),))
    runner.run()
    assert module.training
    assert module[1].training
    assert torch.equal(module[1].running_mean, before)
    assert (runner.label, runner.device, runner.batch, runner.seconds) == ("Sequential", "cpu", 2, None)


def test_torch_runner_takes_exported_modules() -> None:
    """A module that refuses eval() can be measured."""
    example = (torch.randn(2, 3),)
    graph = torch.export.export(nn.Linear(3, 2), example).module()
    torch_runner(graph, example, label="exported").run()


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without hardware, or without meaning, is an error before anything runs."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA device"):
        torch_runner(nn.Linear(3, 2), (torch.randn(2, 3),), device="cuda")
    with pytest.raises(UsageError, match="no device named 'fridge'"):
        torch_runner(nn.Linear(3, 2), (torch.randn(2, 3),), device="fridge")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")
def test_cuda_is_timed_by_events() -> None:
    """On CUDA a copy runs on the device, and its time comes from the device."""
    module = nn.Linear(3, 2)
    runner = torch_runner(module, (torch.randn(2, 3),), device="cuda")
    assert runner.seconds is not None
    assert runner.seconds(3) > 0
    assert module.weight.device.type == "cpu"


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers() or not torch.cuda.is_available(),
    reason="onnxruntime has no CUDA provider, or there is no CUDA device",
)
def test_onnxruntime_runs_on_cuda(tmp_path: Path) -> None:
    """With the CUDA provider inputs and outputs stay on the device."""
    path = linear(tmp_path / "net.onnx", ["batch", 3])
    runner = onnxruntime_runner(path, batch=4, provider="CUDAExecutionProvider")
    runner.run()
    assert runner.device == "cuda"


CPUINFOS = {
    "server": ("flags : fpu avx2 avx512f avx512_vnni amx_tile", ("avx2", "avx512f", "avx512_vnni", "amx"), 16),
    "desktop": ("flags\t\t: fpu avx2 avx_vnni", ("avx2", "avx_vnni"), 8),
    "arm": ("Features : fp asimd sve", ("neon", "sve"), 8),
}


@pytest.mark.parametrize("name", CPUINFOS)
def test_extensions_and_block_come_from_the_kernel(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector extensions are read from the processor's flags, and AVX-512 doubles the channel block."""
    text, isa, block = CPUINFOS[name]
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name : Some CPU\n{text}\n\nprocessor : 1\nflags : avx512f\n")
    monkeypatch.setattr(machine, "CPUINFO", cpuinfo)
    found = this_machine()
    assert (found.cpu, found.isa, kernel_block()) == ("Some CPU", isa, block)


@pytest.mark.parametrize(("capability", "block"), [("AVX512", 16), ("AVX2", 8), ("DEFAULT", 8)])
def test_block_comes_from_torch_where_the_kernel_is_silent(
    capability: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc/cpuinfo, PyTorch's own dispatcher answers; on ARM the block is 8."""
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "nothing")
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert kernel_block() == block
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert (this_machine().isa, kernel_block()) == (("neon",), 8)


def test_this_machine_is_described() -> None:
    """Every field that a figure depends on is there, and is plain data."""
    found = this_machine()
    fields = dataclasses.asdict(found)
    assert set(fields) == {"cpu", "isa", "cores", "threads", "load", "os", "python", "torch", "onnxruntime", "gpu"}
    assert found.cores >= 1
    assert found.threads == torch.get_num_threads()
    assert found.torch == torch.__version__
    assert found.cpu in str(found)
    assert found.onnxruntime in str(found)


def test_file_size(tmp_path: Path) -> None:
    """A file's size is its bytes; no file is an error."""
    (tmp_path / "f").write_bytes(b"12345")
    assert file_bytes(tmp_path / "f") == 5
    with pytest.raises(UsageError, match="no file"):
        file_bytes(tmp_path / "nothing")
