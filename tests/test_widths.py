"""`--widths` and `--drop-dead`: channels that the user, or the data, name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import compress
from compress.core.errors import PlanError, UsageError
from models.convnet import convnet
from models.mlp import mlp
from models.vgg import vgg11
from tests.zoo.explored import files_in, images, network, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py, weights net.pt and 300 images."""
    monkeypatch.chdir(tmp_path)
    return files_in(tmp_path)


def test_a_convnet_gets_the_widths_asked_for() -> None:
    """E2: 32, 64, 64 become 8, 16, 32, the flattened 3136 become 1568, and the strongest filters stay."""
    torch.manual_seed(0)
    net = convnet()
    asked = {"conv1": 8, "conv2": 16, "conv3": 32}
    result = compress.slim(net, torch.rand(2, 1, 28, 28), widths=asked, importance="l1", verify=True)
    cut = result.model
    assert [cut.conv1.out_channels, cut.conv2.out_channels, cut.conv3.out_channels] == [8, 16, 32]
    assert cut.fc.in_features == 1568
    assert result.report.verdict is not None
    assert result.report.verdict.exact
    sums = net.conv1.weight.abs().sum((1, 2, 3)) + net.conv1.bias.abs()
    assert set(result.plan.keep["conv1.weight"][0]) <= set(sums.argsort(descending=True)[:10].tolist())
    assert result.report.cut.cfg_before == (32, "M", 64, "M", 64)
    assert result.report.cut.cfg_after == (8, "M", 16, "M", 32)
    assert result.report.cut.round_to == 1


def test_outputs_of_linear_layers_are_channels_too() -> None:
    """E2: an MLP 784-200-200-10 becomes 784-50-100-10 by the same words."""
    net = mlp()
    first, second, _ = (name for name, part in net.named_modules() if isinstance(part, nn.Linear))
    result = compress.slim(net, torch.rand(2, 1, 28, 28), widths=f"{first}=50,{second}=100", importance="l1")
    sizes = [part.out_features for part in result.model.modules() if isinstance(part, nn.Linear)]
    assert sizes == [50, 100, 10]
    assert result.report.cut.cfg_after == (50, 100, 10)


def test_a_glob_names_many_layers_and_the_list_is_that_of_the_factory() -> None:
    """E1: the widths of a VGG come as the list from which its factory builds the same network."""
    net = vgg11(in_channels=1, cfg=(16, "M", 24, "M", 32, "M", 32))
    result = compress.slim(net, torch.rand(2, 1, 28, 28), widths={"features.*": 12})
    cfg = result.report.cut.cfg_after
    assert cfg == (12, "M", 12, "M", 12, "M", 12)
    again = vgg11(in_channels=1, cfg=cfg)
    again.load_state_dict(result.model.state_dict())
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(again.eval()(x), result.model.eval()(x))


def test_a_network_that_is_no_chain_has_no_list() -> None:
    """Where values meet, widths in a row say nothing."""
    result = compress.slim(network(), torch.rand(2, 1, 8, 8), widths={"conv": 4})
    assert result.report.cut.cfg_after is None


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"conv9": 4}, "conv9"),
        ({"conv": 11}, "only 10"),
        ({"conv": 10}, "nothing would be removed"),
        ({"stem.0": 4, "one.conv2": 6}, "the same channels"),
        ({"head": 2}, "head"),
    ],
)
def test_widths_that_cannot_be_are_refused(asked: dict[str, int], words: str) -> None:
    """Unknown layers, too many channels, two widths for one group and outputs of the network are told apart."""
    with pytest.raises(PlanError, match=words):
        compress.slim(network(), torch.rand(2, 1, 8, 8), widths=asked)


@pytest.mark.parametrize("text", ["conv1", "conv1=", "conv1=0", "=3", ""])
def test_widths_that_cannot_be_read(text: str) -> None:
    """Anything but NAME=CHANNELS is one sentence."""
    with pytest.raises(UsageError, match="--widths"):
        compress.slim(network(), torch.rand(2, 1, 8, 8), widths=text)


def _dying() -> nn.Module:
    """The network with dead channels: one zero where it is read, and one that is the same everywhere."""
    net = network()
    net.conv.bias.data[3] = -100  # a ReLU follows: zero, whatever comes
    net.conv.weight.data[6], net.conv.bias.data[6] = 0, 2.5  # constant, and read by a linear layer
    net.one.bn1.weight.data[4], net.one.bn1.bias.data[4] = 0, -1  # zero behind its ReLU
    net.one.bn1.weight.data[5], net.one.bn1.bias.data[5] = 0, 1  # constant, but read with a border of zeros
    return net


def test_dead_channels_leave_and_nothing_changes(folder: Path) -> None:
    """--drop-dead takes what is zero, or constant without a border, and absorb makes up for it: the same outputs."""
    torch.save(_dying().state_dict(), "net.pt")
    asked = ("--drop-dead", "--calibration", "bare.npz", "--save", "small.pt", "--plan-out", "plan.json", "--no-bench")
    result = run("slim", *asked, "--json", "slim.json")
    assert result.exit_code == 0, result.output
    keep = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["keep"]
    assert set(range(10)) - set(keep["conv.weight"]["0"]) == {3, 6}
    gone = set(range(12)) - set(keep["one.conv1.weight"]["0"])
    assert 4 in gone
    assert 5 not in gone
    small, x = compress.load("small.pt", arch="net.py:build"), torch.stack([images().dataset[i][0] for i in range(64)])
    with torch.no_grad():
        want, got = _dying()(x), small(x)
    assert float((want - got).abs().max() / want.abs().max()) < 1e-4
    told = json.loads((folder / "slim.json").read_text(encoding="utf-8"))
    assert told["cut"]["importance"] == "range"


def test_drop_dead_needs_inputs(folder: Path) -> None:
    """Without calibration it says so before anything is loaded."""
    del folder
    result = run("slim", "--drop-dead")
    assert result.exit_code == 2
    assert "--calibration" in result.stderr
