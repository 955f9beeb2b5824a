"""`compress sensitivity` and `compress maps`: figures that equal what is done by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.evaluation.metrics import evaluate
from compress.graph.prefix import Resume, capture, recorded, resume, split
from compress.graph.residual import blocks
from tests.zoo.explored import files_in, images, network, run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py, weights net.pt and 300 images."""
    monkeypatch.chdir(tmp_path)
    return files_in(tmp_path)


def test_every_group_and_every_block_is_measured(folder: Path) -> None:
    """A group's figures are those of its channels zeroed, a block's those of its branch zeroed, evaluated in full."""
    result = run("sensitivity", "-i", "bn", "--data", "images.npz", "--json", "s.json", "--plot", "s.png")
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "s.json").read_text(encoding="utf-8"))
    assert found["shares"] == [step / 10 for step in range(1, 10)]
    assert [g["name"] for g in found["groups"]] == ["stem.0", "one.conv1", "two.conv1"]
    assert found["warnings"] == ["importance 'bn' cannot judge 1 groups: conv"]
    row = next(g for g in found["groups"] if g["name"] == "two.conv1")
    order = network().two.bn1.weight.abs().argsort()
    for removed, reached in zip(row["removed"], row["reached"], strict=True):
        net = network()
        mask = torch.ones(12).index_fill(0, order[:removed], 0)
        net.two.bn1.register_forward_hook(lambda _m, _i, y, mask=mask: y * mask[:, None, None])
        by_hand = evaluate(net, images())
        assert reached["top1"] == by_hand.top1
        assert reached["loss"] == pytest.approx(by_hand.loss, rel=1e-5)
    assert [b["name"] for b in found["blocks"]] == ["one", "two"]
    for block in found["blocks"]:
        net = network()
        net.get_submodule(block["name"]).bn2.register_forward_hook(lambda _m, _i, y: y * 0)
        by_hand = evaluate(net, images())
        assert block["reached"]["top1"] == by_hand.top1
        assert block["reached"]["loss"] == pytest.approx(by_hand.loss, rel=1e-5)
        assert (block["parameters"], block["macs"]) == (2 * 12 * 12 * 9 + 4 * 12, 2 * 12 * 12 * 9 * 64)
    losses = [r["loss"] for g in found["groups"] for r in g["reached"]] + [
        b["reached"]["loss"] for b in found["blocks"]
    ]
    assert len({round(loss, 6) for loss in losses}) > 20
    assert found["operators"]["skipped"] > 0
    assert (folder / "s.png").read_bytes().startswith(b"\x89PNG")


class Odd(nn.Module):
    """A projected block, a block inside another's branch, a sum that is none, and a branch that is read elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.short = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(4, 6)
        self.outer, self.inner = nn.Linear(6, 6), nn.Linear(6, 6)
        self.leak, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 3)."""
        x = self.b(F.relu(self.a(x))) + self.short(x)
        y = self.outer(x)
        y = y + self.inner(F.relu(y))
        x = x + y
        z = self.leak(x)
        return self.head((x + z) * z.sigmoid())


def test_blocks_are_found_in_the_graph() -> None:
    """Without a name: the dearer operand is the branch, nested blocks are two, a branch read elsewhere is none."""
    torch.manual_seed(0)
    net, x = Odd(), torch.randn(5, 4)
    steps = recorded(net, (torch.randn(2, 4),))
    found = {b.key: b for b in blocks(steps)}
    assert list(found) == ["a", "inner", "outer"]
    assert [b.identity for b in found.values()] == [False, True, True]
    assert set(found["outer"].parameters) == {f"{n}.{k}" for n in ("outer", "inner") for k in ("weight", "bias")}
    for key, without in {
        "a": lambda n: n.b.register_forward_hook(lambda _m, _i, y: y * 0),
        "inner": lambda n: n.inner.register_forward_hook(lambda _m, _i, y: y * 0),
    }.items():
        block = found[key]
        place = split(steps, block.first)
        _, held = capture(net, (x,), steps, [place])
        got = resume(net, (x,), Resume(held[place.at], None, block.leaving.operators, block.leaving.joins))
        handle = without(net)
        with torch.no_grad():
            assert torch.allclose(got, net(x), atol=1e-6)
        handle.remove()


def test_maps_are_means_over_the_images(folder: Path) -> None:
    """All figures are those of the layer's own result, which the block then writes into; a dead channel is named."""
    net = network()
    net.one.bn2.weight.data[7] = net.one.bn2.bias.data[7] = 0
    torch.save(net.state_dict(), "net.pt")
    result = run("maps", "--layer", "one.bn2", "--data", "images.npz", "--top", 5, "--json", "m.json", "--out", "m.svg")
    assert result.exit_code == 0, result.output
    assert "1 of 12 channels are zero on every image: 7" in " ".join(result.stdout.split())
    found = json.loads((folder / "m.json").read_text(encoding="utf-8"))
    seen: list[Tensor] = []
    net.one.bn2.register_forward_hook(lambda _m, _i, y: seen.append(y.clone()))
    with np.load("images.npz") as archive, torch.no_grad():
        net(torch.from_numpy(archive["x"]).permute(0, 3, 1, 2).float() / 255)
    activity = seen[0].abs().mean((0, 2, 3))
    assert found["activation"] == pytest.approx(activity.tolist(), rel=1e-4)
    assert found["order"] == activity.argsort(descending=True).tolist()
    assert found["dead"] == [7]
    assert [m["channel"] for m in found["top"]] == found["order"][:5]
    for shown in found["top"]:
        want = seen[0][:, shown["channel"]].mean(0)
        assert np.allclose(shown["map"], want.numpy(), atol=2e-5)
    assert (folder / "m.svg").read_text(encoding="utf-8").count("<image") == 5 + 1  # and the colour bar


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("maps --layer none --data images.npz", "none"),
        ("maps --layer conv --data images.npz --out m.gif", ".gif"),
        ("sensitivity --data images.npz -i l9", "did you mean"),
        ("sensitivity --data missing.npz", "missing.npz"),
    ],
)
def test_bad_input_is_one_sentence(arguments: str, words: str, folder: Path) -> None:
    """What cannot be looked at is said in one message, and nothing is written."""
    before = set(folder.iterdir())
    command, *others = arguments.split()
    result = run(command, *others, "--json", "s.json")
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert {p for p in folder.iterdir() if p.name != "__pycache__"} == before
