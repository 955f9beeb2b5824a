"""`compress slim` for real, on small networks: files in, files out, nothing replaced."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from compress import load
from compress.cli import app

FACTORY = '''
"""A small network, as a user would hand it over."""
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.body(x)).mean((2, 3)))


def build():
    return Small()
'''


def slim(*arguments: object) -> Result:
    """Run `compress slim` without the latency measurement."""
    return CliRunner().invoke(app, ["slim", "--no-bench", *[str(argument) for argument in arguments]])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py, its trained weights net.pt, the same network as net.ts, and labelled images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FACTORY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    torch.manual_seed(0)
    network: nn.Module = importlib.import_module("net").build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 2)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    network.eval()
    torch.save(network.state_dict(), tmp_path / "net.pt")
    torch.save(network, tmp_path / "pickled.pt")
    example: Tensor = torch.rand(2, 1, 8, 8)
    torch.jit.trace(network, example).save(str(tmp_path / "net.ts"))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (32, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x=images, y=np.arange(32) % 10)
    return tmp_path


ARCH = ("net.pt", "--arch", "net.py:build", "--input-shape", "1,1,8,8", "--percent", 0.5, "--round-to", 1)


def test_weights_become_every_format(folder: Path) -> None:
    """One run writes ONNX, TorchScript, an exported program, the pruned weights, the plan and the figures."""
    files = ["small.onnx", "small.ts", "small.pt2"]
    outs = [word for file in files for word in ("--out", file)]
    result = slim(*ARCH, *outs, "--save", "pruned.pt", "--plan-out", "plan.json", "--json", "report.json")
    assert result.exit_code == 0, result.output
    assert "NOT RECOVERED" in result.stdout
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [Path(file["path"]).name for file in report["exported"]] == files
    assert all(file["max_relative_error"] < 1e-4 for file in report["exported"])
    assert report["exactness"]["exact"] is True
    assert report["costs"]["after"]["macs"] < report["costs"]["before"]["macs"]
    assert 0 < report["cut"]["removed"] <= report["cut"]["channels"]
    assert json.loads((folder / "plan.json").read_text(encoding="utf-8"))["keep"]
    assert (folder / "pruned.pt").stat().st_size < (folder / "net.pt").stat().st_size


def test_a_plan_is_replayed_bit_for_bit(folder: Path) -> None:
    """--plan repeats what --plan-out wrote, down to the last bit of the weights and the plan."""
    assert slim(*ARCH, "--save", "one.pt", "--plan-out", "plan.json").exit_code == 0
    again = ("net.pt", "--arch", "net.py:build", "--input-shape", "1,1,8,8", "--plan", "plan.json")
    result = slim(*again, "--save", "two.pt", "--plan-out", "again.json")
    assert result.exit_code == 0, result.output
    assert (folder / "plan.json").read_bytes() == (folder / "again.json").read_bytes()
    one, two = (load(file, arch="net.py:build").state_dict() for file in ("one.pt", "two.pt"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_saved_cut_is_a_checkpoint_again(folder: Path) -> None:
    """What --save wrote can be inspected, cut further, and saved once more."""
    assert slim(*ARCH, "--save", "one.pt").exit_code == 0
    half = load("one.pt", arch="net.py:build")
    again = slim("one.pt", "--arch", "net.py:build", "--percent", 0.5, "--round-to", 1, "--save", "two.pt")
    assert again.exit_code == 0, again.output
    quarter = load("two.pt", arch="net.py:build")
    assert sum(p.numel() for p in quarter.parameters()) < sum(p.numel() for p in half.parameters())
    shown = CliRunner().invoke(app, ["inspect", "two.pt", "--arch", "net.py:build", "--json", "groups.json"])
    assert shown.exit_code == 0, shown.output
    assert "channels may leave" in shown.stdout
    assert json.loads((folder / "groups.json").read_text(encoding="utf-8"))["prunable"] < 32


def test_a_file_with_its_own_graph_needs_no_source(folder: Path) -> None:
    """A TorchScript archive is cut without the code that made it."""
    result = slim("net.ts", "--input-shape", "1,1,8,8", "--percent", 0.25, "--round-to", 1, "--out", "small.onnx")
    assert result.exit_code == 0, result.output
    assert (folder / "small.onnx").stat().st_size > 0


def test_accuracy_masked_equals_accuracy_pruned(folder: Path) -> None:
    """With labelled data the table and the JSON show accuracy three times, the last two equal."""
    data = ("--data", "images.npz", "--mean", 0.5, "--std", 0.5)
    result = slim(*ARCH, *data, "--json", "report.json")
    assert result.exit_code == 0, result.output
    accuracy = json.loads((folder / "report.json").read_text(encoding="utf-8"))["accuracy"]
    assert accuracy["masked"]["top1"] == accuracy["pruned"]["top1"]
    assert accuracy["masked"]["loss"] == pytest.approx(accuracy["pruned"]["loss"], rel=1e-4)
    assert accuracy["original"]["images"] == 32


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("net.pt -p 0.5 --input-shape 1,1,8,8", "net.pt"),
        ("pickled.pt -p 0.5 --input-shape 1,1,8,8", "--trust"),
        ("net.pt --arch net.py:nothing --input-shape 1,1,8,8 -p 0.5", "nothing"),
        ("net.pt --arch none.py:build --input-shape 1,1,8,8 -p 0.5", "none.py"),
        ("net.pt --arch net.py:build --input-shape 1,3,8,8 -p 0.5", "1"),
        ("net.pt --arch net.py:build --input-shape 1,1,8,8 -p 0.5 --importance l3", "did you mean"),
        ("net.pt --arch net.py:build --input-shape 1,1,8,8 -p 0", ""),
        ("net.pt --arch net.py:build --input-shape 1,1,8,8 -p 0.5 --keep *", ""),
        ("net.pt --arch net.py:build --input-shape 1,1,8,8 -p 0.5 --data none.npz", "none.npz"),
        ("net.py -p 0.5", "net.py"),
    ],
)
def test_bad_input_is_one_sentence(arguments: str, words: str, folder: Path) -> None:
    """Whatever is wrong with the input ends with exit code 2, one message, and not a single file."""
    before = {path.name for path in folder.iterdir()}
    result = slim(*arguments.split(), "--out", "small.onnx", "--json", "report.json", "--save", "pruned.pt")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == before
