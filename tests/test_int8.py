"""int8 and float16 files of the trained network in models/: how often they answer alike, and what stays in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_models import CHECKPOINT, MODELS
from torch import Tensor, nn

import compress
from compress.core.errors import ExportError, UsageError
from compress.export import export
from compress.export.answers import Answers, answers, distance, outputs, same_class
from compress.export.int8 import quantize, quantizer
from compress.export.int8_auto import keep_float
from compress.export.onnx_save import about_of

IMAGES = MODELS / "fashion-mnist"


def images(name: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the first images of a file, as the network reads them, and their labels."""
    with np.load(IMAGES / f"{name}.npz") as archive:
        pixels, labels = archive["x"][:count], archive["y"][:count]
    x = torch.from_numpy(pixels).reshape(count, 1, 28, 28).float() / 255
    return (x - 0.28604060411453247) / 0.3530242443084717, torch.from_numpy(labels).long()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """The shipped network, which reaches 93.55 % on the test images."""
    return compress.load(CHECKPOINT, arch=f"{MODELS / 'resnet.py'}:resnet14")


@pytest.fixture(scope="module")
def whole(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a float32 ONNX file."""
    path = tmp_path_factory.mktemp("whole") / "whole.onnx"
    export(trained, (torch.zeros(2, 1, 28, 28),), path, about={"source": "fashion"})
    return path


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_int8_answers_as_the_float_file_does(method: str, whole: Path, trained: nn.Module, tmp_path: Path) -> None:
    """Calibrated on 48 images by each method, int8 agrees on 97 of 100 test images, and its weights take a third."""
    path = tmp_path / "small.onnx"
    done = quantize(whole, path, images("calibration", 48)[0], method=method)
    x, labels = images("test", 200)
    with torch.no_grad():
        reference = trained(x)
    given = outputs(answers(path), x)
    same = same_class(given, reference)
    assert same is not None
    assert same >= 0.97
    assert done.agreement is not None
    assert done.agreement >= 0.97
    right = [float((y.argmax(1) == labels).double().mean()) for y in (given, reference)]
    assert abs(right[0] - right[1]) <= 0.02
    assert done.bytes == path.stat().st_size < whole.stat().st_size / 3
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    assert about_of(path) == {"source": "fashion", "compress.int8": f"{method}, 48 inputs"}


def test_float16_answers_as_the_network_does(trained: nn.Module, tmp_path: Path) -> None:
    """Both formats in float16 choose the network's class on at least 199 of 200 test images."""
    x, _ = images("test", 200)
    with torch.no_grad():
        reference = trained(x)
    for name in ("half.onnx", "half.ts"):
        export(trained, (torch.zeros(2, 1, 28, 28),), tmp_path / name, precision="float16")
        same = same_class(outputs(answers(tmp_path / name), x), reference)
        assert same is not None
        assert same >= 0.995


def test_an_int8_file_that_answers_otherwise_is_not_left_behind(whole: Path, tmp_path: Path) -> None:
    """A file that agrees less often than asked for, here more than always, is an error that says what to try."""
    with pytest.raises(ExportError, match="chooses another class") as caught:
        quantize(whole, tmp_path / "small.onnx", images("calibration", 16)[0], min_agreement=1.01)
    assert "--int8-auto" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_quantized_is_refused(whole: Path, tmp_path: Path) -> None:
    """Another format, inputs of another shape, and a layer that is not there are usage errors."""
    x = images("calibration", 16)[0]
    with pytest.raises(UsageError, match="written as ONNX"):
        quantize(whole, tmp_path / "small.ts", x)
    with pytest.raises(UsageError, match="reads"):
        quantize(whole, tmp_path / "small.onnx", x[:, :, :14])
    with pytest.raises(UsageError, match="no layer is named"):
        quantize(whole, tmp_path / "small.onnx", x, keep_float=["nothing"])
    assert not list(tmp_path.iterdir())


class Uneven(nn.Module):
    """Three convolutions, the middle one with two channels whose scales lie 10,000 apart: int8 loses the small one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.wide, self.last = (nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        with torch.no_grad():
            self.wide.weight[0] *= 1e4
            self.last.weight[:, 0] = 0

    def forward(self, x: Tensor) -> Tensor:
        """Take (N, 2, 6, 6) to the same shape."""
        y: Tensor = self.last(self.wide(self.first(x)))
        return y


def test_the_costliest_layers_stay_in_float(tmp_path: Path) -> None:
    """Only layers around the uneven tensor stay in float, found with few files; an unreachable floor is an error."""
    whole, x = tmp_path / "whole.onnx", torch.randn(32, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    export(Uneven(), (x[:2],), whole)
    reference = outputs(answers(whole), x)

    def closeness(file: Path) -> float:
        return 1 - distance(outputs(answers(file), x), reference)

    with quantizer(whole, x, "minmax", None) as prepared:
        assert len(prepared.layers) == 3
        plain = tmp_path / "plain.onnx"
        prepared.write(plain)
        assert closeness(plain) < 0.9
        chosen = keep_float(prepared, whole, tmp_path, x, closeness, 0.99)
        assert 0 < len(chosen.keep_float) < 3
        assert chosen.score >= 0.99
        prepared.write(plain, keep_float=chosen.keep_float)
        assert closeness(plain) == pytest.approx(chosen.score)
        assert keep_float(prepared, whole, tmp_path, x, closeness, 0.0).keep_float == ()
        with pytest.raises(ExportError, match="less than the 2"):
            keep_float(prepared, whole, tmp_path, x, closeness, 2.0)


def test_a_file_for_one_batch_size_answers_any_number_of_inputs() -> None:
    """The last batch is filled up, and the answers to the filling are dropped."""
    sizes: list[int] = []

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        sizes.append(len(inputs[0]))
        return (inputs[0] * 2,)

    x = torch.arange(5.0)[:, None]
    assert torch.equal(Answers(run, 2)(x), 2 * x)
    assert sizes == [2, 2, 2]


@pytest.mark.parametrize(("shape", "expected"), [((2, 3), 0.5), ((2, 1), None), ((2, 3, 4), None)])
def test_agreement_needs_classes(shape: tuple[int, ...], expected: float | None) -> None:
    """The fraction of rows with the same largest output; None where a row is no list of classes."""
    given = torch.zeros(shape)
    reference = given.clone()
    if len(shape) == 2 and shape[1] > 1:
        reference[1, 2] = 1.0
    assert same_class(given, reference) == expected
