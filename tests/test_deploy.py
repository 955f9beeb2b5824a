"""What a file is like beyond computing the same: opset, free sizes, metadata, operators, precision, weights outside."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from compress.cli import checks
from compress.core.errors import ExportError, UsageError
from compress.core.types import Accuracy, Speedup
from compress.export import export, load, onnx_save
from compress.export.onnx_opset import UNBOUNDED, newest_complete, newest_opset
from compress.export.onnx_save import about_of
from compress.export.onnx_tidy import tidy
from compress.export.target import ABOUT
from compress.report.deployed import deployment
from compress.report.types import DeployStep

SIZED = (torch.zeros(2, 3, 8, 8),)


class Small(nn.Module):
    """A residual block with a global pool, whose pool reads a channels-last tensor, and two equal constants."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.two, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.register_buffer("shift", torch.linspace(0, 1, 8).reshape(8, 1, 1))
        self.register_buffer("same", torch.linspace(0, 1, 8).reshape(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Take (N, 3, H, W) to (N, 4)."""
        x = self.norm(self.one(x)).relu() + self.shift
        x = (self.two(x) + x) * self.same
        x = nn.functional.layer_norm(x.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)
        pooled = self.pool(x)
        normed = nn.functional.layer_norm(pooled.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)
        logits: Tensor = self.head(normed.flatten(1))
        return logits


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as ONNX with free batch, height and width, and words about itself."""
    path = tmp_path_factory.mktemp("written") / "net.onnx"
    done = export(Small(), SIZED, path, dynamic_size=True, about={"source": "net.pt", "plan": "abc"})
    assert (done.sizes, done.batch_sizes, done.notes) == (((8, 8), (40, 72)), (1, 2, 5), ())
    return path


def test_the_opset_is_the_newest_that_onnxruntime_fully_supports(written: Path) -> None:
    """Without --opset the file has the set that onnxruntime's own list of kernels gives."""
    assert onnx.load(written).opset_import[0].version == newest_opset()


def test_an_opset_that_loses_an_operator_is_not_fully_supported() -> None:
    """A kernel for every version up to the last counts; one that is only good for its first version does not."""
    versions = {"Conv": [11, 22], "Roi": [16, 22], "Gone": [1, 10], "New": [23]}
    kernels = {"Conv": [(11, 21), (22, UNBOUNDED)], "Roi": [(16, UNBOUNDED)], "Gone": [(1, 9)]}
    assert newest_complete(versions, kernels) == 21
    assert newest_complete(versions, kernels | {"Roi": [(16, 21), (22, UNBOUNDED)]}) == 23
    assert newest_complete(versions, {}) is None


def test_height_and_width_are_free(written: Path) -> None:
    """The file has the names batch, height and width, and gives PyTorch's results at two sizes it was not traced at."""
    shape = onnx.load(written).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, "height", "width"]
    module, run = Small().eval(), load(written)
    for size in ((5, 9), (16, 12)):
        x = torch.randn(3, 3, *size)
        torch.testing.assert_close(run((x,))[0], module(x).detach(), rtol=1e-4, atol=1e-5)


def test_sizes_that_the_network_fixes_cannot_be_free(tmp_path: Path) -> None:
    """A network that flattens its image is refused, and leaves no file; one without images has no size to free."""
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(ExportError, match="does not run at batch size"):
        export(fixed, SIZED, tmp_path / "net.onnx", dynamic_size=True)
    with pytest.raises(UsageError, match="height and a width"):
        export(nn.Linear(3, 2), (torch.zeros(2, 3),), tmp_path / "net.onnx", dynamic_size=True)
    assert not list(tmp_path.iterdir())


def test_no_operator_is_left_that_is_not_needed(written: Path) -> None:
    """No norm, index arithmetic, Identity or Transpose around lengths of 1 is left; equal weights are there once."""
    graph = onnx.load(written).graph
    kinds = Counter(node.op_type for node in graph.node)
    needed = {"Conv": 2, "Relu": 1, "Add": 2, "Mul": 1, "Transpose": 3, "LayerNormalization": 2}
    assert kinds == needed | {"GlobalAveragePool": 1, "Reshape": 1, "Gemm": 1}
    tensors = [(t.data_type, tuple(t.dims), onnx.numpy_helper.to_array(t).tobytes()) for t in graph.initializer]
    assert len(tensors) == len(set(tensors))


def test_a_reshape_that_copies_lengths_keeps_its_transpose() -> None:
    """A zero in a Reshape's target means another dimension once the Transpose is gone: then nothing is changed."""

    def kept(target: list[int]) -> list[str]:
        value = onnx.helper.make_tensor_value_info
        nodes = [
            onnx.helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
            onnx.helper.make_node("Reshape", ["t", "s"], ["y"]),
        ]
        shape = onnx.numpy_helper.from_array(np.array(target, np.int64), "s")
        ends = [value("x", 1, ["n", 1, 4])], [value("y", 1, ["n", 4])]
        graph = onnx.helper.make_graph(nodes, "g", *ends, [shape])
        return [node.op_type for node in tidy(onnx.helper.make_model(graph)).graph.node]

    assert kept([-1, 4]) == ["Reshape"]
    assert kept([0, 4]) == ["Transpose", "Reshape"]


@pytest.mark.parametrize("suffix", [".onnx", ".ts", ".pt2"])
def test_what_a_file_says_about_itself_is_read_back(suffix: str, tmp_path: Path) -> None:
    """Every format carries the metadata it was given."""
    path, about = tmp_path / f"net{suffix}", {"source": "net.pt", "plan": "abc"}
    export(nn.Linear(3, 2), (torch.zeros(2, 3),), path, about=about)
    if suffix == ".onnx":
        assert about_of(path) == about
        return
    found = {ABOUT: ""}
    (torch.jit.load if suffix == ".ts" else torch.export.load)(path, **{_extra(suffix): found})
    text = found[ABOUT]
    assert json.loads(text.decode() if isinstance(text, bytes) else text) == about


def _extra(suffix: str) -> str:
    return "_extra_files" if suffix == ".ts" else "extra_files"


def test_weights_that_one_file_cannot_hold_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit there are two files that belong together, and the pair computes the same."""
    monkeypatch.setattr(onnx_save, "LARGEST", 2000)
    path, module = tmp_path / "net.onnx", Small().eval()
    done = export(module, SIZED, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert done.beside == (str(tmp_path / "net.onnx.data"),)
    assert done.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert any("net.onnx.data" in note for note in done.notes)
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(load(path)((x,))[0], module(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".onnx", ".ts"])
def test_float16_halves_the_weights_and_keeps_the_ends(suffix: str, tmp_path: Path) -> None:
    """The file takes and returns float32, is within 2e-2 of the network, and holds its weights in half of the bytes."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    whole = export(module, SIZED, tmp_path / f"whole{suffix}")
    half = export(module, SIZED, tmp_path / f"half{suffix}", precision="float16")
    assert half.precision == "float16"
    assert half.bytes < 0.6 * whole.bytes
    assert 1e-7 < half.max_relative_error < 2e-2
    x = torch.randn(3, 3, 8, 8)
    (given,) = load(tmp_path / f"half{suffix}")((x,))
    assert given.dtype == torch.float32
    assert module[1].weight.dtype == torch.float32
    torch.testing.assert_close(given, module(x).detach(), rtol=2e-2, atol=2e-3)


def test_what_a_format_does_not_have_is_refused(tmp_path: Path) -> None:
    """float16 as .pt2, int8 without calibration, and an optimised .onnx are errors before anything is written."""
    for suffix, options, words in (
        (".pt2", {"precision": "float16"}, "float16"),
        (".onnx", {"precision": "int8"}, "calibration"),
        (".ts", {"precision": "int8"}, "ONNX"),
        (".onnx", {"optimize": True}, "TorchScript"),
    ):
        with pytest.raises(UsageError, match=words):
            export(nn.Linear(3, 2), (torch.zeros(2, 3),), tmp_path / f"net{suffix}", **options)
    assert not list(tmp_path.iterdir())


def test_torchscript_is_frozen(tmp_path: Path) -> None:
    """The archive holds constants, no parameters and no norm; where optimising cannot be saved, a note says so."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    export(module, SIZED, tmp_path / "net.ts")
    script = torch.jit.load(tmp_path / "net.ts")
    assert not list(script.parameters())
    assert "batch_norm" not in str(script.graph)
    done = export(module, SIZED, tmp_path / "fast.ts", optimize=True)
    assert done.max_relative_error < 1e-4
    assert all("optimize_for_inference" in note for note in done.notes)


@pytest.mark.parametrize(
    ("out", "given", "words"),
    [
        (["a.ts"], {"int8": True, "data": "digits"}, "--int8 is for .onnx"),
        (["a.pt2"], {"fp16": True}, "--fp16 is for .onnx and .ts"),
        (["a.onnx"], {"optimize": True}, "--optimize is for .ts"),
        ([], {"opset": 18}, "--opset"),
        ([], {"dynamic_size": True}, "--dynamic-size"),
        (["a.onnx"], {"int8": True}, "calibrate"),
        (["a.onnx"], {"int8": True, "fp16": True, "data": "digits"}, "exclude each other"),
        (["a.onnx", "a.ts"], {"int8": True, "fp16": True, "data": "digits"}, ""),
        (["a.onnx"], {"int8": True, "calibration": "digits"}, ""),
    ],
)
def test_options_that_no_file_is_for_are_refused(out: list[str], given: dict[str, object], words: str) -> None:
    """Each option of the deployment needs a file in a format that has it, and int8 something to calibrate on."""
    none = {"opset": None, "optimize": False, "fp16": False, "int8": False, "dynamic_size": False}
    asked = none | {"data": None, "calibration": None} | given
    if not words:
        checks.deployment([Path(name) for name in out], asked)
        return
    with pytest.raises(UsageError, match=words):
        checks.deployment([Path(name) for name in out], asked)


def test_steps_to_int8_are_a_table() -> None:
    """Accuracy, agreement, size and speed of original, pruned and int8 stand in one row each."""
    speed = Speedup(
        runtime="r",
        device="cpu",
        threads=1,
        batch=1,
        before=0.01,
        after=0.0025,
        ratio=0.25,
        low=0.2,
        high=0.3,
        rounds=5,
    )
    reached = Accuracy(top1=0.935, top5=1.0, loss=0.2, per_class=(), images=200)
    steps = [
        DeployStep(name="original", bytes=4096, accuracy=reached),
        DeployStep(name="pruned + int8", path="a.onnx", accuracy=reached, agreement=0.995, latency=speed),
    ]
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(deployment(steps))
    text = console.export_text()
    assert all(words in text for words in ("93.50 %", "99.50 %", "4.00 KiB", "4.00 [3.33, 5.00]", "10 ms"))
