"""Fine-tuning and distillation as a user meets them in `compress slim`, from the command line and from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import EXACT, digits, net
from torch import nn
from typer.testing import CliRunner, Result

import compress
from compress.cli import app
from compress.core.errors import DataError, UsageError
from compress.core.progress import Silent
from compress.evaluation.learning import divided, unseen
from compress.graph.analyse import analyse
from compress.recovery.distill import distill, quotient
from compress.recovery.features import fitting, stage_features, watching
from compress.recovery.finetune import finetune
from compress.recovery.training.samples import Samples
from compress.recovery.training.team import Team
from compress.surgery.cut import dead_labels

ALONE = Team(0, 1, torch.device("cpu"))
LONGER = replace(EXACT, epochs=5)
SOURCE = '''
"""A network that a user brings."""
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.0), nn.Linear(96, 10),
    )
'''


@pytest.fixture(scope="module")
def taught() -> nn.Module:
    """Return a small network that knows the digits."""
    module = net()
    finetune(module, *digits(), EXACT, ALONE, Silent())
    return module.eval()


def agreement(one: nn.Module, two: nn.Module, held: Samples) -> float:
    """Return on which fraction of the held-out images both give the same answer."""
    x = next(held.inputs.batches([torch.arange(len(held))]))
    with torch.no_grad():
        return float((one.eval()(x).argmax(1) == two.eval()(x).argmax(1)).double().mean())


@pytest.mark.parametrize("matched", [False, True])
def test_distillation_brings_a_cut_network_nearer(taught: nn.Module, matched: bool) -> None:
    """Five epochs without labels win back at least 20 points of agreement of a network cut by half."""
    samples, held = digits()
    example = torch.rand(2, 1, 8, 8)
    done = compress.slim(taught, example, percent=0.5, scope="layer", importance="l2", round_to=1)
    cut = done.model
    before = agreement(taught, cut, held)
    features = ()
    if matched:
        analysis = analyse(taught, (example,))
        found = stage_features(analysis, dead_labels(analysis, done.plan), taught, cut)
        features = fitting(found, taught, cut, example)
        assert [feature.path for feature in features] == ["2", "6", "7"]
    unlabelled, aside = Samples(samples.inputs), Samples(held.inputs)
    result = distill(taught, cut, unlabelled, aside, LONGER, ALONE, Silent(), features=features)
    assert result.best is not None
    assert agreement(taught, cut, held) == pytest.approx(result.best.right)
    assert agreement(taught, cut, held) > before + 0.2


def test_features_are_compared_channel_by_channel(taught: nn.Module) -> None:
    """Right behind the cut the kept channels of the first stage are exactly the original's: their distance is 0."""
    example = torch.rand(4, 1, 8, 8)
    done = compress.slim(taught, example, percent=0.5, round_to=1)
    analysis = analyse(taught, (example,))
    features = stage_features(analysis, dead_labels(analysis, done.plan), taught, done.model)
    with watching(taught, features) as theirs, watching(done.model, features) as ours, torch.no_grad():
        taught(example)
        done.model(example)
    first = features[0]
    assert len(first.kept[0][1]) == done.model[1].num_features < 16
    assert float(quotient(ours[first.path], first.of_original(theirs[first.path]))) < 1e-10


def test_reported_images_are_left_out() -> None:
    """Inputs that also occur among the reported ones are not learned from, and are counted."""
    x = torch.rand(20, 3)
    assert unseen(x, [x[[4]], x[7:9]]).tolist() == [i for i in range(20) if i not in {4, 7, 8}]
    learning = divided(x, None, EXACT, "these", reported=[x[:5]])
    assert len(learning.samples) + len(learning.held or ()) == 15
    assert "5 of its images" in learning.notes[0]


def test_what_was_held_out_is_held_out_again() -> None:
    """Leaving images out moves none between the two parts, so that none that was learned from judges afterwards."""
    x = torch.rand(200, 3)
    whole = divided(x, None, EXACT, "these")
    left = divided(x, None, EXACT, "these", reported=[x[20:60], x[199:]])
    assert whole.held is not None
    assert left.held is not None
    first, later = (
        {row.tobytes() for row in next(part.held.inputs.batches([torch.arange(len(part.held))])).numpy()}  # type: ignore[union-attr,arg-type]
        for part in (whole, left)
    )
    assert later < first
    assert (len(whole.held), len(left.samples) + len(left.held)) == (20, 159)
    few = divided(x, None, EXACT, "these", reported=[next(whole.held.inputs.batches([torch.arange(20)]))])
    assert (len(few.samples), len(few.held or ())) == (162, 18)  # nothing of it is left: what stays is divided


def test_python_takes_images_to_train_on(taught: nn.Module) -> None:
    """`slim(finetune=, train=(x, y))` gains accuracy, reports loss and seconds, and spares the model."""
    samples, held = digits()
    x = next(samples.inputs.batches([torch.arange(800)]))
    before = {name: tensor.clone() for name, tensor in taught.state_dict().items()}
    how = {"percent": 0.5, "scope": "layer", "importance": "l2", "round_to": 1}
    raw = compress.slim(taught, x[:2], **how)  # type: ignore[arg-type]
    done = compress.slim(taught, x[:2], **how, finetune=3, train=(x, samples.labels), precision="float32")  # type: ignore[arg-type]
    assert [stage.name for stage in done.report.stages] == ["cut", "tuned"]
    stage = done.report.stages[1]
    assert stage.kept
    assert stage.loss is not None
    assert stage.held_out is not None
    assert stage.held_out > 0.8
    assert stage.seconds > 0
    test = next(held.inputs.batches([torch.arange(200)]))
    right = [float((m.eval()(test).argmax(1) == held.labels).double().mean()) for m in (raw.model, done.model)]
    assert right[1] > right[0] + 0.1
    again = compress.slim(taught, x[:2], **how, calibration=x[:200], distill=1)  # type: ignore[arg-type]
    assert [s.name for s in again.report.stages] == ["cut", "absorbed", "recalibrated", "distilled"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in taught.state_dict().items())
    with pytest.raises(DataError, match="no labels"):
        compress.slim(taught, x[:2], **how, finetune=1, train=x)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no inputs to train on"):
        compress.slim(taught, x[:2], **how, distill=1)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taught: nn.Module) -> Path:
    """A folder with net.py, its weights net.pt, and unlabelled images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(SOURCE, encoding="utf-8")
    torch.save(taught.state_dict(), tmp_path / "net.pt")
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "bare.npz", x=generator.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8))
    return tmp_path


OWN = ("net.pt", "--arch", "net.py:build", "--input-shape", "1,1,8,8", "--percent", 0.5, "--scope", "layer", "-i", "l2",
       "--round-to", 1)  # fmt: skip


def slim(*arguments: object) -> Result:
    """Run the command on the folder's network."""
    return CliRunner().invoke(app, ["slim", "--no-bench", *[str(a) for a in (*OWN, *arguments)]])


def test_the_command_distils_and_fine_tunes(folder: Path) -> None:
    """Both steps are in the table and the JSON with loss and seconds, gain accuracy, and are what is saved."""
    extra = ("--data", "digits", "--distill", 2, "--finetune", 2, "--batch-size", 64, "--precision", "float32")
    result = slim(*extra, "--json", "r.json", "--save", "small.pt")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert list(stages) == ["cut", "distilled", "tuned"]
    assert report["trained_on"] == "digits (train)"
    assert stages["tuned"]["accuracy"]["top1"] > stages["cut"]["accuracy"]["top1"] + 0.2
    assert stages["tuned"]["accuracy"]["loss"] < stages["cut"]["accuracy"]["loss"]
    assert stages["tuned"]["seconds"] > 0
    assert report["accuracy"]["pruned"] == stages["tuned"]["accuracy"]
    assert "held-out accuracy" in " ".join(result.stdout.split())
    assert "NOT RECOVERED" not in result.stdout
    assert not list(folder.glob("*.state"))


def test_steps_are_trained_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--steps 2 --finetune 1 cuts, trains, cuts and trains; every optimiser holds what its cut has left, no more."""
    from compress.recovery.training import loop

    seen: list[tuple[nn.Module, torch.optim.Optimizer, int]] = []
    plain = loop.optimizer_for

    def noted(module: nn.Module, *given: Any) -> torch.optim.Optimizer:
        """Note the optimiser beside the network that it is for."""
        made = plain(module, *given)
        seen.append((module, made, sum(p.numel() for p in module.parameters())))
        return made

    monkeypatch.setattr(loop, "optimizer_for", noted)
    extra = ("--data", "digits", "--finetune", 1, "--batch-size", 64, "--precision", "float32", "--steps", 2)
    result = slim(*extra, "--json", "r.json", "--save", "small.pt")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    steps = report["steps"]
    assert len(seen) == len(steps) == 2
    for (module, optimiser, size), step in zip(seen, steps, strict=True):
        live = {id(p) for p in module.parameters()}
        assert {id(p) for group in optimiser.param_groups for p in group["params"]} == live
        assert {id(p) for p in optimiser.state} <= live
        assert all(state["momentum_buffer"].shape == p.shape for p, state in optimiser.state.items())
        assert size == step["parameters"]
    assert steps[1]["parameters"] < steps[0]["parameters"] < report["costs"]["before"]["parameters"]
    assert [step["reached"]["name"] for step in steps] == ["tuned", "tuned"]
    assert steps[1]["reached"]["accuracy"] == report["accuracy"]["pruned"]
    assert report["accuracy"]["pruned"]["top1"] > report["accuracy"]["masked"]["top1"] + 0.2
    small = compress.load("small.pt", arch="net.py:build").state_dict()
    assert all(torch.equal(small[name], tensor) for name, tensor in seen[1][0].state_dict().items())
    text = " ".join(result.stdout.split())
    assert "cut and won back in steps" in text
    assert f"top-1 {100 * steps[0]['reached']['accuracy']['top1']:.2f} %" in text
    assert not list(folder.glob("*.state"))


def test_two_processes_tune_as_one(folder: Path) -> None:
    """torchrun with two CPU processes and the same total batch ends with the weights of one, and writes once."""
    extra = ("--data", "digits", "--finetune", 1, "--batch-size", 64, "--precision", "float32", "--device", "cpu")
    assert slim(*extra, "--save", "one.pt").exit_code == 0
    run = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "compress")
    done = subprocess.run(
        [sys.executable, *run, "slim", "--no-bench", *map(str, (*OWN, *extra, "--save", "two.pt", "--json", "t.json"))],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / "t.json").read_text(encoding="utf-8"))
    assert "2 processes" in told["stages"][-1]["note"]
    assert told["stages"][-1]["kept"]
    assert done.stdout.count("prunable channels removed") == 1
    one, two = (compress.load(folder / name, arch="net.py:build").state_dict() for name in ("one.pt", "two.pt"))
    raw = {name: tensor for name, tensor in one.items() if tensor.is_floating_point()}
    assert all(torch.allclose(tensor, two[name], rtol=0, atol=2e-5) for name, tensor in raw.items())


def test_an_interrupted_command_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C saves and says where; without --resume the state is not overwritten; with it the result is the same."""
    extra = ("--data", "digits", "--finetune", 2, "--batch-size", 64, "--precision", "float32")
    assert slim(*extra, "--save", "whole.pt").exit_code == 0
    from compress.recovery.training import loop

    steps = 0
    plain = loop.rate

    def counted(*given: Any) -> float:
        """Press Ctrl-C during the 25th step."""
        import os
        import signal

        nonlocal steps
        steps += 1
        if steps == 25:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(*given)

    monkeypatch.setattr(loop, "rate", counted)
    stopped = slim(*extra, "--save", "small.pt")
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert stopped.exit_code == 130
    assert "small.pt.tuned.state" in stopped.stderr
    assert "--resume" in stopped.stderr
    assert not (folder / "small.pt").exists()
    refused = slim(*extra, "--save", "small.pt")
    assert refused.exit_code == 2
    assert "was not finished" in refused.stderr
    assert slim(*extra, "--save", "small.pt", "--resume").exit_code == 0
    one, two = (compress.load(folder / name, arch="net.py:build").state_dict() for name in ("whole.pt", "small.pt"))
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--lr", 0.1), "none is asked for"),
        (("--finetune", 1), "no images to train on"),
        (("--finetune", 1, "--train", "bare.npz"), "no labels"),
        (("--finetune", 1, "--train", "digits", "--lr", -1), "--lr must be positive"),
        (("--finetune", 1, "--train", "digits", "--resume"), "--save or --out"),
        (("--finetune", 1, "--train", "digits", "--resume", "--steps", 2, "--save", "s.pt"), "several are asked for"),
        (("--finetune", 1, "--data", "bare.npz", "--train", "bare.npz"), "same images"),
        (("--finetune", 1, "--train", "digits", "--distill-features"), "--distill"),
    ],
)
def test_bad_inputs_end_with_2(folder: Path, arguments: tuple[object, ...], said: str) -> None:
    """Each is one message that says what to do, and nothing is written."""
    result = slim(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert {path.name for path in folder.iterdir()} == {"net.py", "net.pt", "bare.npz"}
