"""`--drop-blocks`: residual blocks leave, exactly, and what is left is saved, loaded and exported."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compress
from compress.evaluation.metrics import evaluate
from compress.surgery.shortcuts import How, shortened, zeroed_output
from tests.zoo.explored import files_in, images, network, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py, weights net.pt and 300 images."""
    monkeypatch.chdir(tmp_path)
    return files_in(tmp_path)


def by_hand(*names: str) -> nn.Module:
    """The network with the branches of these blocks multiplied by zero."""
    net = network()
    for name in names:
        net.get_submodule(name).bn2.register_forward_hook(lambda _m, _i, y: y * 0)
    return net


def test_the_block_that_is_missed_least_leaves(folder: Path) -> None:
    """--drop-blocks 1 takes the better of two, its parameters are gone, and every file computes the masked original."""
    files = ("--save", "small.pt", "--out", "small.onnx", "--json", "slim.json", "--plan-out", "plan.json")
    result = run("slim", "--drop-blocks", 1, "--data", "images.npz", "--no-bench", *files)
    assert result.exit_code == 0, result.output
    reached = {name: evaluate(by_hand(name), images()) for name in ("one", "two")}
    best = max(reached, key=lambda name: (reached[name].top1, -reached[name].loss))
    told = json.loads((folder / "slim.json").read_text(encoding="utf-8"))
    assert f"reduced to their shortcuts: {best}," in " ".join(told["warnings"])
    assert told["exactness"]["max_relative_error"] < 1e-12
    assert told["accuracy"]["pruned"]["top1"] == told["accuracy"]["masked"]["top1"] == reached[best].top1
    assert told["costs"]["before"]["parameters"] - told["costs"]["after"]["parameters"] == 2 * 12 * 12 * 9 + 4 * 12
    assert told["costs"]["before"]["macs"] - told["costs"]["after"]["macs"] == 2 * 12 * 12 * 9 * 64
    small, x = compress.load("small.pt", arch="net.py:build"), torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        want = by_hand(best)(x)
        assert torch.allclose(small(x), want, atol=1e-6)
    session = onnxruntime.InferenceSession("small.onnx")
    assert np.allclose(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0], want.numpy(), atol=1e-5)
    again = run("slim", "--plan", "plan.json", "--no-bench", "--save", "again.pt")
    assert again.exit_code == 0, again.output
    with torch.no_grad():
        assert torch.equal(compress.load("again.pt", arch="net.py:build")(x), small(x))


def test_channels_leave_what_is_left(folder: Path) -> None:
    """With a budget beside it, channels are cut from the shortened network; the saved file replays both."""
    result = run("slim", "--drop-blocks", "one", "--widths", "conv=4", "--no-bench", "--save", "small.pt")
    assert result.exit_code == 0, result.output
    small = compress.load("small.pt", arch="net.py:build")
    assert small.conv.weight.shape == (4, 12, 3, 3)
    assert not list(small.one.parameters())
    assert small(torch.rand(2, 1, 8, 8)).shape == (2, 5)
    del folder


def test_a_network_without_a_block_is_trained_when_asked(folder: Path) -> None:
    """--finetune trains also where a block is all that leaves; the original is not touched by it."""
    rng = np.random.default_rng(1)
    labels = np.arange(600) % 5
    lines = rng.integers(0, 60, (600, 8, 8, 1)) + 180 * (np.arange(8)[:, None, None] == labels[:, None, None, None])
    for name, part in (("seen.npz", slice(0, 500)), ("unseen.npz", slice(500, 600))):
        np.savez(folder / name, x=lines[part].astype(np.uint8), y=labels[part])
    learn = ("--data", "unseen.npz", "--train", "seen.npz", "--finetune", 8, "--precision", "float32")
    result = run("slim", "--drop-blocks", "one", *learn, "--no-bench", "--json", "slim.json", "--save", "small.pt")
    assert result.exit_code == 0, result.output
    told = json.loads((folder / "slim.json").read_text(encoding="utf-8"))
    cut, tuned = (stage["accuracy"] for stage in told["stages"])
    accuracy = told["accuracy"]
    assert [stage["name"] for stage in told["stages"]] == ["cut", "tuned"]
    assert cut["top1"] == accuracy["masked"]["top1"] == evaluate(by_hand("one"), images("unseen.npz")).top1
    assert accuracy["original"]["top1"] == evaluate(network(), images("unseen.npz")).top1
    assert tuned["top1"] == accuracy["pruned"]["top1"] > cut["top1"] + 0.2
    assert told["recovered"]
    small = compress.load("small.pt", arch="net.py:build")
    assert evaluate(small, images("unseen.npz")).top1 == tuned["top1"]


class Projected(nn.Module):
    """A block whose shortcut has a layer of its own, behind a ReLU, as a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.short = nn.Linear(6, 8), nn.Linear(8, 8), nn.Sequential(nn.Linear(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 8)."""
        return F.relu(self.b(F.relu(self.a(x))) + self.short(x))


class Signed(nn.Module):
    """A block that ends in a tanh: only its branch can be emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 8) -> (N, 8)."""
        return torch.tanh(x + self.a(x))


class Bare(nn.Module):
    """A block without a module for its layer, added in place: only the graph can leave it out."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 8) -> (N, 8)."""
        y = F.linear(x, self.weight)
        y += x
        return torch.tanh(y)


@pytest.mark.parametrize(
    ("block", "way"),
    [(Projected, How.SHORTCUT_RELU), (Signed, How.BRANCH), (Bare, How.GRAPH)],
    ids=["projected", "signed", "bare"],
)
def test_every_way_is_exact(block: type[nn.Module], way: How) -> None:
    """The first way that computes the original without the branch is taken, and the layer is really gone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6 if block is Projected else 8), block(), nn.Linear(8, 3)).eval()
    example = (torch.randn(4, 4),)
    key = {Projected: "1.a", Signed: "1.a", Bare: "1.weight"}[block]
    if block is Bare:
        key = "1"
    result = shortened(net, example, [key])
    assert list(result.how.values()) == [way]
    assert result.own is (way is not How.GRAPH)
    (want,) = zeroed_output(net, (example[0].double(),), [key])
    with torch.no_grad():
        assert torch.allclose(result.module(*example), want.float(), atol=1e-5)
        assert not torch.allclose(net(*example), want.float(), atol=1e-3)
    gone = sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in result.module.parameters())
    assert gone == {Projected: 6 * 8 + 8 + 8 * 8 + 8, Signed: 8 * 8 + 8, Bare: 8 * 8}[block]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--drop-blocks three", "no residual block 'three'"),
        ("--drop-blocks 5 --data images.npz", "2 blocks"),
        ("--drop-blocks 1", "--calibration"),
        ("--drop-blocks one --submodule one --percent 0.5", "exclude"),
    ],
)
def test_blocks_that_cannot_leave(arguments: str, words: str, folder: Path) -> None:
    """Unknown names, too many and no images to compare on are one sentence each."""
    del folder
    result = run("slim", *arguments.split(), "--no-bench")
    assert result.exit_code == 2, result.output
    assert words in result.stderr


class Linear(nn.Module):
    """A stem, a block whose branch is linear, and a head that reads the stream through one more layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
        self.read, self.head = nn.Conv2d(6, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, H, W) -> (N, 5)."""
        x = self.stem(x)
        x = x + self.branch(x)
        return self.head(self.read(x).relu().mean((2, 3)))


def test_a_block_that_leaves_alone_is_won_back() -> None:
    """What reads the stream takes up a linear branch exactly: the answers are the original's again, which is whole."""
    torch.manual_seed(0)
    net, x = Linear().eval(), torch.randn(64, 2, 6, 6)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    result = compress.slim(net, x[:2], drop_blocks="branch", calibration=x)
    report = result.report
    assert [stage.name for stage in report.stages][:2] == ["cut", "absorbed"]
    assert report.stages[0].distance is not None
    assert report.stages[1].distance is not None
    assert report.stages[0].distance > 1e-3
    assert report.stages[1].distance < 1e-8
    assert report.verdict is not None
    assert report.verdict.exact
    new = torch.randn(8, 2, 6, 6)
    with torch.no_grad():
        assert torch.allclose(result.model(new), net(new), atol=1e-4)
    assert result.plan.drop == {"branch": "branch"}
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    only = compress.slim(net, x[:2], drop_blocks=1, calibration=x, recover=False)
    with torch.no_grad():
        assert (only.model(new) - net(new)).abs().max() > 1e-2


def test_channels_that_leave_with_a_block_are_won_back_towards_the_whole() -> None:
    """With channels gone as well, recovery and its figures look to the original with all its blocks."""
    torch.manual_seed(0)
    net, x = Linear().eval(), torch.randn(64, 2, 6, 6)
    result = compress.slim(net, x[:2], drop_blocks="branch", widths="read=7", calibration=x)
    raw, best = result.report.stages[0].distance, result.report.stages[-1].distance
    assert raw is not None
    assert best is not None
    assert best < 0.05 * raw
    net_without = compress.slim(net, x[:2], drop_blocks="branch").model
    with torch.no_grad():
        new = torch.randn(256, 2, 6, 6)
        apart = (result.model(new) - net(new)).square().sum()
        assert apart < 0.05 * (net_without(new) - net(new)).square().sum()


def test_a_bound_is_measured_on_the_whole_original(folder: Path) -> None:
    """--min-agreement counts what the block cost, too: the figure is the share of images with the original's answer."""
    result = run("slim", "--drop-blocks", "one", "--min-agreement", 0.4, "--calibration", "bare.npz", "--no-bench",
                 "--round-to", 1, "--json", "slim.json", "--save", "small.pt")  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads((folder / "slim.json").read_text(encoding="utf-8"))
    assert told["agreement"] >= 0.4
    (kept,) = {t["reached"] for t in told["search"]["trials"] if t["macs"] == told["costs"]["after"]["macs"]}
    assert kept == told["agreement"]


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_a_share_beside_blocks_is_of_the_whole(kind: str) -> None:
    """0.75 of the MACs or parameters is met within 1 %, the block counted; where it is enough, nothing else goes."""
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict(wide=nn.Conv2d(1, 64, 3, padding=1), block=Added(), head=nn.Conv2d(64, 60, 3)))
    x = torch.randn(2, 1, 6, 6)
    key = "macs" if kind == "macs" else "parameters"
    how: dict[str, Any] = {"drop_blocks": "block", "importance": "l2", "round_to": 1, kind: 0.75}
    report = compress.slim(net.eval(), x, **how).report
    assert 0.74 <= getattr(report.costs_after, key) / getattr(report.costs_before, key) <= 0.75
    enough = compress.slim(net, x, **{**how, kind: 0.95}).report
    assert enough.cut.removed == 0
    assert any("the blocks alone leave" in text for text in enough.warnings)


class Added(nn.Module):
    """A block of 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 64, H, W) -> the same."""
        return F.relu(x + self.conv(x))
