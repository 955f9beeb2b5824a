"""What `compress bench` may claim, from durations that a test makes up: nothing here is timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_measure import Clock
from torch import nn
from typer.testing import CliRunner

from compress.cli import app
from compress.cli.bench import counts
from compress.core.errors import UsageError
from compress.core.measuring import Backend, Device
from compress.export import export
from compress.measure.backends import BACKENDS, Job, Setting, Subject, resolved, runner_of
from compress.measure.bench_results import BenchReport, Standing
from compress.measure.explain import explained
from compress.measure.layers import LayerCost, NetworkCost
from compress.measure.profile import LayerTime, NodeTime, parsed, with_work
from compress.measure.roofline import Roof, measured_roof
from compress.measure.rounds import interleaved, order
from compress.measure.statistics import Outcome, PairedRatio, paired, spread
from compress.pipeline.bench import BenchOptions, run_bench
from compress.report.bench import bench_json
from compress.report.benchplot import draw_bench

ROUNDS = 30


def rounds(generator: np.random.Generator, seconds: float, noise: float) -> list[np.ndarray]:
    """Return passes of one network: each round its own luck, each pass a little more."""
    return [
        seconds * np.exp(noise * generator.standard_normal() + 0.01 * generator.standard_normal(3))
        for _ in range(ROUNDS)
    ]


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_the_same_network_is_told_apart_from_itself_at_most_once_in_twenty(noise: float) -> None:
    """With a control, an interval that leaves out 1 for equal networks is rarer than 5 %, at every noise."""
    generator = np.random.default_rng(7)
    runs = 100
    wrong = 0
    for _ in range(runs):
        first, second, control = (rounds(generator, 0.01, noise) for _ in range(3))
        found = paired("a", first, second, control)
        wrong += not found.low <= 1 <= found.high
    assert wrong / runs < 0.05


def test_a_real_difference_is_told_through_noise() -> None:
    """A network at 0.8 of the time is called faster with rounds that vary by 10 %, and the interval holds 0.8."""
    generator = np.random.default_rng(3)
    found = paired("a", rounds(generator, 0.010, 0.1), rounds(generator, 0.008, 0.1), rounds(generator, 0.010, 0.1))
    assert found.outcome is Outcome.FASTER
    assert found.low < 0.8 < found.high


def test_drift_of_the_machine_cancels_in_the_ratio() -> None:
    """When every round is slower than the one before, for both networks, the ratio is still exact."""
    drift = [1.5**i for i in range(10)]
    before = [np.array([0.01 * d]) for d in drift]
    after = [np.array([0.005 * d]) for d in drift]
    found = paired("a", before, after)
    assert (found.ratio, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_a_control_that_is_off_widens_every_interval() -> None:
    """If a second load of the first file takes 10 % longer, a difference of 8 % is not claimed."""
    one = [np.array([1.0])] * 10
    found = paired("a", one, [np.array([0.92])] * 10, [np.array([1.1])] * 10)
    assert found.control == pytest.approx(1.1)
    assert (found.low, found.high) == pytest.approx((0.92 / 1.1, 0.92 * 1.1))
    assert found.outcome is not Outcome.FASTER


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.4, 0.6, Outcome.FASTER),
        (1.01, 1.2, Outcome.SLOWER),
        (0.98, 1.03, Outcome.SAME),
        (0.7, 1.3, Outcome.NOISY),
    ],
)
def test_words_instead_of_numbers_that_mean_nothing(low: float, high: float, outcome: Outcome) -> None:
    """A ratio is printed only where its interval leaves out 1; a wide interval around 1 blames the machine."""
    found = PairedRatio(against="a", ratio=(low + high) / 2, low=low, high=high)
    assert found.outcome is outcome
    assert str(found).startswith("not distinguishable") == (low <= 1 <= high)


def test_percentiles_are_over_single_passes() -> None:
    """p50, p90 and p99 of 1 to 100 ms."""
    found = spread([np.arange(1, 51) / 1e3, np.arange(51, 101) / 1e3])
    assert (found.p50, found.p90, found.p99) == pytest.approx((0.0505, 0.0901, 0.09901))
    assert found.passes == 100


def test_everybody_takes_every_place_in_a_round() -> None:
    """Over the rounds each of three networks runs first, second and last equally often."""
    places = np.array([order(3, turn) for turn in range(6)])
    assert all(sorted(places[:, at].tolist()) == [0, 0, 1, 1, 2, 2] for at in range(3))


def test_rounds_hold_every_pass_of_every_network() -> None:
    """A pass of 2.5 ms is repeated until a spell lasts 20 ms, one of 40 ms runs once; all are kept."""
    clock = Clock()
    fast, slow = clock.runner("fast", lambda _: 2**-9), clock.runner("slow", lambda _: 2**-4)
    found = interleaved([fast, slow], rounds=6, clock=clock, max_seconds=1e9)
    assert [len(r) for r in found[0]] == [11] * 6
    assert [len(r) for r in found[1]] == [1] * 6
    assert np.concatenate(found[0]) == pytest.approx(2**-9)


def test_too_few_rounds_are_refused() -> None:
    """Four rounds make no interval."""
    with pytest.raises(UsageError, match="too few"):
        interleaved([Clock().runner("a", lambda _: 1.0)], rounds=4)


EVENTS = json.loads((Path(__file__).parent / "data" / "ort_profile.json").read_text(encoding="utf-8"))


def test_a_recorded_profile_is_read() -> None:
    """The profile of conv-relu-conv-gemm: four passes, the first left out, fused and moved nodes by their names."""
    nodes = parsed(EVENTS["events"], skip=1)
    assert [n.operator for n in nodes] == EVENTS["operators"]
    by_name = {n.name: n for n in nodes}
    assert by_name["relu_nchwc"].inputs[1] == (16, 3, 3, 3)
    durations = [e["dur"] for e in EVENTS["events"] if e.get("cat") == "Node" and e["name"] == "relu_nchwc_kernel_time"]
    assert by_name["relu_nchwc"].seconds == pytest.approx(np.quantile(durations[1:], 0.25) / 1e6)


def test_fused_nodes_get_the_work_of_the_layer_behind_them() -> None:
    """A node named after the ReLU that it swallowed, with padded shapes, counts the file's own MACs."""
    conv = LayerCost(
        name="conv", operator="Conv", macs=1000, parameters=27, activations=8, traffic=100, weight=(5, 3), output="c"
    )
    relu = LayerCost(
        name="r", operator="Relu", macs=0, parameters=0, activations=8, traffic=64, output="relu", inputs=("c",)
    )
    node = NodeTime(name="relu_nchwc", operator="Conv", seconds=1e-3, inputs=((1, 3), (16, 3)), outputs=((1, 16),))
    (found,) = with_work([node], NetworkCost(name="n", layers=(conv, relu)), batch=2)
    assert (found.name, found.macs, found.weight) == ("conv", 2000, (5, 3))
    assert found.flops == pytest.approx(4e6)


def layer(name: str, macs: int, seconds: float, traffic: int, weight: tuple[int, ...]) -> LayerTime:
    """Return a layer of a made-up network."""
    return LayerTime(
        name=name,
        operator="Conv",
        seconds=seconds,
        macs=macs,
        traffic=traffic,
        weight=weight,
        shape=(1, weight[0], 8, 8),
    )


def test_why_it_is_not_faster() -> None:
    """Each reason is found where it holds: memory, an odd width, a small layer; a layer that kept pace has none."""
    roof = Roof(flops=1e11, bandwidth=1e10, threads=1)
    square = (64, 64, 3, 3)
    before = [layer(n, 10**8, 4e-3, 10**5, square) for n in ("pace", "memory", "odd", "small")]
    after = [
        layer("pace", 5 * 10**7, 2e-3, 10**5, (32, 64, 3, 3)),
        layer("memory", 10**7, 3e-3, 10**7, (32, 64, 3, 3)),
        layer("odd", 5 * 10**7, 3.5e-3, 10**5, (33, 64, 3, 3)),
        layer("small", 10**4, 1e-5, 10**5, (16, 64, 3, 3)),
    ]
    found = explained("b", after, roof, block=16, against="a", before=before)
    words = {c.after.name: c.words for c in found.changes if c.after is not None}
    assert words["pace"] == ""
    assert "bound by memory: 2.0 FLOPs a byte" in words["memory"]
    assert "33 is no multiple of 16: computed as 48" in words["odd"]
    assert words["small"].startswith("small")
    assert any("3 of them lag behind" in sentence for sentence in found.sentences)


def test_the_roof_is_the_best_try() -> None:
    """With a clock that adds a second a look, the roof is the work of one try in one second."""
    now = iter(range(10_000))
    roof = measured_roof(1, clock=lambda: float(next(now)))
    assert roof.flops == 2 * 1024**3
    assert roof.bandwidth == 2 * 64 * 2**20
    assert roof.ridge == pytest.approx(16)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny network as ONNX, TorchScript and exported program."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    folder = tmp_path_factory.mktemp("files")
    made = {suffix: folder / f"net.{suffix}" for suffix in ("onnx", "ts", "pt2")}
    for path in made.values():
        export(net, (torch.randn(2, 3, 8, 8),), path)
    return made


def test_any_mix_of_files_runs_in_any_backend(files: dict[str, Path]) -> None:
    """ONNX, TorchScript and .pt2 side by side: what a backend cannot run is skipped, with the reason."""
    options = BenchOptions(
        files=(files["onnx"], files["ts"], files["pt2"]),
        backends=(Backend.ONNXRUNTIME, Backend.EAGER, Backend.TORCHSCRIPT, Backend.OPENVINO),
        device=Device.CPU,
        batches=(1, 3),
        threads=(1,),
        rounds=5,
        max_seconds=0.2,
        per_layer=True,
        fresh=False,
        input_shape=(1, 3, 8, 8),
    )
    report = run_bench(options)
    for batch in (1, 3):
        ran = {(s.backend, s.label) for s in report.standings if s.batch == batch}
        assert ran == {
            *((Backend.ONNXRUNTIME, f"net.{suffix}") for suffix in ("onnx", "ts", "pt2")),
            *((Backend.EAGER, f"net.{suffix}") for suffix in ("ts", "pt2")),
            (Backend.TORCHSCRIPT, "net.ts"),
        }
    against = {(s.backend, s.label): s.ratio.against for s in report.standings if s.ratio is not None}
    assert against[Backend.ONNXRUNTIME, "net.pt2"] == "net.onnx"
    assert against[Backend.EAGER, "net.pt2"] == "net.ts"
    why = {(s.backend, s.label): s.why for s in report.skipped}
    assert "which PyTorch does not run" in why[Backend.EAGER, "net.onnx"]
    assert "cannot be had as .ts" in why[Backend.TORCHSCRIPT, "net.pt2"]
    assert "OpenVINOExecutionProvider" in why[Backend.OPENVINO, "net.ts"]
    assert [layers.label for layers in report.layers] == ["net.ts", "net.pt2"]
    assert [c.after.macs for c in report.layers[0].changes if c.after] == [8 * 36 * 27, 8 * 36 * 4]
    assert "ratio" in json.loads(bench_json(report))["standings"][0]


def test_load_time_and_memory_come_from_a_fresh_process(files: dict[str, Path]) -> None:
    """The process that loads the file reports seconds, and bytes where the kernel tells them."""
    options = BenchOptions(files=(files["onnx"],), device=Device.CPU, threads=(1,), rounds=5, max_seconds=0.1)
    report = run_bench(options)
    (standing,) = report.standings
    assert not report.skipped
    assert standing.load is not None
    assert standing.load > 0
    assert standing.ratio is None
    assert standing.throughput == pytest.approx(1 / standing.seconds.p50)


def standing(label: str, p50: float, accuracy: float | None) -> Standing:
    """Return a made-up result."""
    return Standing(
        label=label,
        path=label,
        backend=Backend.ONNXRUNTIME,
        runtime="fake 1",
        device=Device.CPU,
        batch=1,
        threads=1,
        file_bytes=10,
        seconds=spread([np.array([p50])]),
        throughput=1 / p50,
        rounds=5,
        accuracy=accuracy,
    )


@pytest.mark.parametrize(("accuracy", "expected"), [(None, False), (0.9, True)])
def test_the_picture_shows_what_is_known(tmp_path: Path, accuracy: float | None, expected: bool) -> None:
    """Bars for every file; a panel of accuracy against latency only where accuracy is known."""
    path = tmp_path / "speed.svg"
    draw_bench(BenchReport(standings=(standing("a", 0.02, accuracy), standing("b", 0.01, accuracy))), path)
    drawn = path.read_text(encoding="utf-8")
    assert ("top-1" in drawn) is expected


def test_cuda_where_there_is_none_is_said() -> None:
    """Asking for CUDA without a device is a usage error; auto falls to the CPU."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert resolved(Device.AUTO) is Device.CPU
    with pytest.raises(UsageError, match="no CUDA device"):
        resolved(Device.CUDA)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_passes_are_timed_by_events(files: dict[str, Path]) -> None:
    """On CUDA the eager runner counts by the device's clock."""
    report = run_bench(
        BenchOptions(
            files=(files["ts"],), backends=(Backend.EAGER,), device=Device.CUDA, fresh=False, input_shape=(1, 3, 8, 8)
        )
    )
    assert report.standings[0].device is Device.CUDA
    assert report.standings[0].seconds.p50 > 0


def test_every_backend_has_an_entry() -> None:
    """What --help offers, the table knows; TensorRT on the CPU is refused in words."""
    assert {str(backend) for backend in Backend} == set(BACKENDS)
    setting = Setting(device=Device.CPU, batch=1, threads=1)
    job = Job(subject=Subject(label="n", path=Path("n.onnx"), network=None), setting=setting, folder=Path())
    with pytest.raises(UsageError, match="CUDA only"):
        runner_of(Backend.TENSORRT, job)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch", "0"], "at least 1"),
        (["--batch", "x"], "must be numbers"),
        (["--plot", "speed.doc"], "no picture has the suffix"),
        (["--arch", "a", "--arch", "b"], "2 times for 1 files"),
    ],
)
def test_mistakes_are_told_at_once(files: dict[str, Path], arguments: list[str], words: str) -> None:
    """Options that cannot be meant end with code 2 and a sentence."""
    result = CliRunner().invoke(app, ["bench", str(files["onnx"]), *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_lists_hold_each_number_once() -> None:
    """Repeated sizes are measured once."""
    assert counts("--threads", "2,1,2") == (2, 1)


def test_the_command_prints_and_writes(files: dict[str, Path], tmp_path: Path) -> None:
    """A file against itself: a table, a JSON with machine and interval, exit code 0."""
    out = tmp_path / "bench.json"
    options = ["--rounds", "5", "--seconds", "0.2", "--no-memory", "--json", str(out)]
    result = CliRunner().invoke(app, ["bench", str(files["onnx"]), str(files["onnx"]), *options])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert [row["label"] for row in found["standings"]] == ["net.onnx (1)", "net.onnx (2)"]
    assert found["standings"][1]["ratio"]["low"] <= found["standings"][1]["ratio"]["high"]
    assert found["machine"]["cpu"]
