"""`compress train`: from an architecture and images to a checkpoint that can be cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

import compress
from compress.checkpoint import load as read_checkpoint
from compress.cli import app
from compress.cli.train import keywords
from compress.evaluation import evaluate, open_data

SOURCE = '''
"""A network that a user brings."""
from torch import nn


def build(*, num_classes=3, in_channels=3, width=16, norm=True, dropout=0.0):
    def block(i, o):
        return [nn.Conv2d(i, o, 3, padding=1), *([nn.BatchNorm2d(o)] if norm else []), nn.ReLU(), nn.MaxPool2d(2)]

    head = [nn.Flatten(), nn.Dropout(dropout), nn.Linear(8 * width, num_classes)]
    return nn.Sequential(*block(in_channels, width), *block(width, 2 * width), *head)
'''
QUICK = ("--batch-size", 64, "--epochs", 3, "--precision", "float32", "--pad", 0, "--no-flip")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


def train(*arguments: object, out: str = "net.pt") -> Result:
    """Run the command on the digits."""
    own = ("train", "--arch", "net.py:build", "--data", "digits", "--out", out)
    return CliRunner().invoke(app, [str(a) for a in (*own, *arguments)])


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights in a checkpoint."""
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return found


def same(one: Path, two: Path, tolerance: float = 0.0) -> bool:
    """Whether two checkpoints hold the same weights, up to `tolerance`."""
    a, b = weights(one), weights(two)
    return all(torch.allclose(a[name].double(), b[name].double(), rtol=0, atol=tolerance) for name in a)


def test_what_is_trained_can_be_cut(folder: Path) -> None:
    """Digits are learned, classes told one by one, and the file that is written is cut without further options."""
    result = train(*QUICK, "--json", "t.json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads((folder / "t.json").read_text(encoding="utf-8"))
    assert report["arch_options"] == {"num_classes": 10, "in_channels": 1}
    losses = [epoch["loss"] for epoch in report["training"]["epochs"]]
    assert losses[-1] < 0.4 * losses[0]
    assert report["accuracy"]["top1"] > 0.9
    assert len(report["accuracy"]["per_class"]) == 10
    assert sum(report["scales"]["counts"]) == 48
    assert [line for line in result.stdout.splitlines() if line.startswith("epoch 3 of 3: loss")]
    network = read_checkpoint("net.pt", arch="net.py:build")
    test = open_data("digits", preprocessing=network.preprocessing, channels=1, size=(8, 8))
    assert evaluate(network.module, test).top1 == report["accuracy"]["top1"]
    slim = ("slim", "net.pt", "--trust", "--percent", "0.5", "--round-to", "1", "--no-bench", "--data", "digits")
    cut = CliRunner().invoke(app, [*slim, "--json", "s.json"])
    assert cut.exit_code == 0, cut.output
    assert json.loads((folder / "s.json").read_text())["accuracy"]["original"]["top1"] == report["accuracy"]["top1"]


def test_sparsity_makes_scales_small(folder: Path) -> None:
    """With the penalty of network slimming the mean scale is less than half, and digits are still learned."""
    means = {}
    for s in (0.0, 0.05):
        assert train(*QUICK, "--recipe", "slimming", "--sparsity", s, "--json", "t.json", out=f"s{s}.pt").exit_code == 0
        found = [v for k, v in weights(folder / f"s{s}.pt").items() if k in {"1.weight", "5.weight"}]
        means[s] = float(torch.cat(found).abs().mean())
    assert means[0.0] > 0.5
    assert means[0.05] < 0.5 * means[0.0]
    assert json.loads((folder / "t.json").read_text(encoding="utf-8"))["accuracy"]["top1"] > 0.9


def test_group_lasso_makes_whole_channels_small(folder: Path) -> None:
    """With the growing penalty on groups the weakest quarter of the channels falls, relative to the strongest."""
    spread = {}
    for s in (0.0, 0.02):
        extra = ("--sparsity", s, "--regularizer", "group-lasso", "--option", "norm=false", "--lr", 0.02)
        assert train(*QUICK, *extra, out=f"s{s}.pt").exit_code == 0
        norms = weights(folder / f"s{s}.pt")["3.weight"].flatten(1).norm(dim=1).sort().values
        spread[s] = float(norms[:8].mean() / norms[-8:].mean())
    assert spread[0.02] < 0.7 * spread[0.0]


def test_a_killed_training_is_resumed_to_the_same_weights(folder: Path) -> None:
    """SIGKILL after the first state is written; --resume ends with the numbers of a run that nobody killed."""
    extra = (*QUICK, "--option", "dropout=0.2", "--ema", 0.9, "--checkpoint-every", 3)
    assert train(*extra, out="whole.pt").exit_code == 0
    own = ("train", "--arch", "net.py:build", "--data", "digits", "--out", "net.pt", "--quiet")
    script = (
        "import os, signal, sys\n"
        "from compress.recovery.training import loop\n"
        "plain, written = loop.write_state, []\n"
        "def kill(*given):\n"
        "    plain(*given)\n"
        "    written.append(1)\n"
        "    len(written) == 9 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "loop.write_state = kill\n"
        "from compress.cli import main\n"
        "main()\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, *map(str, (*own, *extra))], check=False, env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "net.pt").exists()
    refused = train(*extra)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    other = train(*extra, "--resume", "--lr", 0.3)
    assert other.exit_code == 2
    assert "lr was 0.1, is 0.3" in other.stderr
    resumed = train(*extra, "--resume", "--json", "t.json")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads((folder / "t.json").read_text())["training"]["resumed"] > 0
    assert same(folder / "whole.pt", folder / "net.pt")
    assert not (folder / "net.pt.state").exists()


def test_two_processes_train_as_one(folder: Path) -> None:
    """torchrun with two CPU processes and the same total batch gives the weights of one, BatchNorm included."""
    extra = ("--epochs", 1, "--lr", 0.05, *QUICK[:2], *QUICK[4:], "--device", "cpu")
    assert train(*extra, out="one.pt").exit_code == 0
    own = ("train", "--arch", "net.py:build", "--data", "digits", "--out", "two.pt")
    run = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "compress")
    done = subprocess.run(
        [sys.executable, *run, *map(str, (*own, *extra, "--json", "t.json"))],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "t.json").read_text())["training"]["processes"] == 2
    assert done.stdout.count("epoch 1 of 1") == 1
    assert same(folder / "one.pt", folder / "two.pt", tolerance=2e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--recipe", "slimmer"), "did you mean 'slimming'"),
        (("--epochs", 5, "--recipe", "activation"), "tail"),
        (("--lr", -1), "learning rate"),
        (("--option", "width"), "NAME=VALUE"),
        (("--option", "wide=3"), "cannot be called with"),
        (("--arch", "net.py:built"), "no function 'built'"),
        (("--data", "nowhere"), "does not exist"),
        (("--sparsity", 1e-4, "--option", "norm=false"), "group-lasso"),
        (("--shifts",), "--sparsity"),
        (("--test", "none.npz"), "none.npz"),
        (("--out", "no/where.pt"), "does not exist"),
        (("--lr", 1e12, *QUICK), "no longer a finite number"),
        (("--precision", "float16", "--device", "cpu"), "needs a GPU"),
        (("--resume", "--start", "none.pt"), "no file none.pt"),
        (("--input-shape", "1,1,20,20"), "cannot run on images of 1 x 20 x 20"),
    ],
)
def test_bad_inputs_end_with_2(folder: Path, arguments: tuple[object, ...], said: str) -> None:
    """Each is one message that says what to do; no checkpoint is left."""
    result = train(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not (folder / "net.pt").exists()


def test_a_training_starts_from_given_weights(folder: Path) -> None:
    """--start with a rate of almost nothing ends where it began."""
    assert train(*QUICK, "--epochs", 1).exit_code == 0
    result = train(*QUICK, "--epochs", 1, "--start", "net.pt", "--lr", 1e-12, "--option", "in_channels=1", out="b.pt")
    assert result.exit_code == 0, result.output
    first, second = weights(folder / "net.pt"), weights(folder / "b.pt")
    assert all(torch.allclose(first[k], second[k], atol=1e-6) for k in first if k.endswith((".weight", ".bias")))
    assert compress.load(folder / "b.pt", trust=True)[0].in_channels == 1  # type: ignore[index]


def test_keywords_are_json() -> None:
    """Numbers, lists and switches of a factory."""
    assert keywords(["a=1", 'b=[2, "M"]', "c=true"]) == {"a": 1, "b": [2, "M"], "c": True}
