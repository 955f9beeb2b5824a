"""MACs, parameters and traffic of layers, against counts by hand and of two kinds of file against each other."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
import torchvision
from torch import nn
from typer.testing import CliRunner

from compress.cli import app
from compress.core.errors import CheckpointError, UsageError
from compress.export import export
from compress.measure.layers import total
from compress.measure.onnx_layers import onnx_layers
from compress.measure.torch_layers import torch_layers


class Everything(nn.Module):
    """Convolution of every kind, linear layers and attention."""

    def __init__(self) -> None:
        """Build small layers."""
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(16, 4, 2, stride=2)
        self.mix = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, 3, 8, 8) -> (N, 5)."""
        x = self.up(self.grouped(self.depthwise(self.stem(x)).relu()))
        x = x.flatten(2).transpose(1, 2)
        return self.head(self.mix(x, x, x, need_weights=False)[0].mean(1))


# stem 8x4x4 out x 27; depthwise 8x4x4 x 9; grouped 16x4x4 x 36; up: 16x4x4 in x 16; 64 tokens of width 4.
BY_HAND = {
    "stem": 8 * 16 * 27,
    "depthwise": 8 * 16 * 9,
    "grouped": 16 * 16 * 4 * 9,
    "up": 16 * 16 * 4 * 4,
    "attention": 64 * 4 * 12 + 2 * 64 * 64 * 4 + 64 * 4 * 4,
    "head": 20,
}


def test_macs_by_hand() -> None:
    """Every kind of layer counts what its formula says, for one input, whatever the example's batch."""
    cost = torch_layers(Everything().eval(), (torch.randn(3, 3, 8, 8),), "everything")
    named = {layer.name: layer.macs for layer in cost.layers if layer.macs and not layer.name.startswith("mix")}
    assert named == {name: macs for name, macs in BY_HAND.items() if name != "attention"}
    assert cost.macs == sum(BY_HAND.values())


def test_onnx_and_module_agree_on_every_kind_of_layer(tmp_path: Path) -> None:
    """The exported file costs the same MACs as the module that was traced."""
    net = Everything().eval()
    export(net, (torch.randn(2, 3, 8, 8),), tmp_path / "net.onnx")
    found = onnx_layers(tmp_path / "net.onnx")
    assert found.macs == sum(BY_HAND.values())
    assert not found.notes


def test_onnx_and_module_agree_on_a_real_network(tmp_path: Path) -> None:
    """squeezenet1_1, which has no norm to fold: equal MACs, and every parameter is counted once on both sides."""
    net = torchvision.models.squeezenet1_1(weights=None).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.05)  # biases of zero would be left out of the file
    export(net, (torch.randn(2, 3, 64, 64),), tmp_path / "net.onnx")
    traced = torch_layers(net, (torch.randn(2, 3, 64, 64),), "net")
    found = onnx_layers(tmp_path / "net.onnx")
    assert found.macs == traced.macs > 10**6
    parameters = sum(p.numel() for p in net.parameters())
    assert total(traced.layers, "parameters") == total(found.layers, "parameters") == parameters


@pytest.mark.parametrize(("name", "macs"), [("resnet18", 1_814_073_344), ("mobilenet_v2", 300_774_272)])
def test_known_networks(name: str, macs: int) -> None:
    """The totals at 224 x 224 are those that the literature gives: 1.81 G and 301 M."""
    net = torchvision.models.get_model(name, weights=None).eval()
    assert torch_layers(net, (torch.randn(1, 3, 224, 224),), name).macs == macs


def test_traffic_of_a_linear_layer() -> None:
    """Weights once, input and output for one row, 4 bytes each; FLOPs a byte follow."""
    cost = torch_layers(nn.Linear(6, 4), (torch.randn(5, 6),), "fc")
    (layer,) = cost.layers
    assert (layer.macs, layer.parameters, layer.activations) == (24, 28, 4)
    assert layer.traffic == 4 * (24 + 4 + 6 + 4)
    assert layer.intensity == pytest.approx(48 / 152)


def tiny(path: Path, shape: list[int | str]) -> Path:
    """Write an ONNX file that multiplies an input of `shape` with a (6, 4) weight."""
    weight = onnx.numpy_helper.from_array(torch.randn(6, 4).numpy(), "w")
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    path.write_bytes(proto.SerializeToString())
    return path


def test_free_sizes_come_from_the_input_shape(tmp_path: Path) -> None:
    """A file with free tokens is counted for the length that is given, and refused without one."""
    path = tiny(tmp_path / "t.onnx", ["batch", "tokens", 6])
    assert onnx_layers(path, (1, 10, 6)).macs == 10 * 24
    with pytest.raises(UsageError, match="dimension 1 of input 'x'"):
        onnx_layers(path)


def test_what_is_no_onnx_is_said(tmp_path: Path) -> None:
    """A text under an .onnx name is a checkpoint error."""
    path = tmp_path / "no.onnx"
    path.write_text("no")
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        onnx_layers(path)


def test_the_command_counts(tmp_path: Path) -> None:
    """The table's JSON holds the sum, the layers and the units."""
    path = tiny(tmp_path / "t.onnx", ["batch", 6])
    out = tmp_path / "f.json"
    result = CliRunner().invoke(app, ["flops", str(path), "--json", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["total"]["macs"], found["total"]["parameters"]) == (24, 24)
    assert "total" in result.output
