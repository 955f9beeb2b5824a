"""Recovery as a user meets it: from Python and from the command line, with what each step reached."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import compress
from compress.checkpoint import load as read_checkpoint
from compress.cli import app
from compress.core.errors import DataError
from compress.evaluation import calibration_batch, evaluate, open_data
from compress.evaluation.stages import calibration_of
from compress.recovery.closeness import distance

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models/fashion_resnet14.pt"
IMAGES = ROOT / "models/fashion-mnist"
SOURCE = '''
"""A network that a user brings."""
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.py, its weights net.pt, and two sets of images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(SOURCE, encoding="utf-8")
    scope: dict[str, object] = {}
    exec(SOURCE, scope)
    torch.manual_seed(0)
    torch.save(scope["build"]().state_dict(), tmp_path / "net.pt")  # type: ignore[operator]
    generator = np.random.default_rng(0)
    for name, count in (("data", 40), ("more", 100)):
        images = generator.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
        labels = {"y": np.arange(count) % 10} if name == "data" else {}
        np.savez(tmp_path / f"{name}.npz", x=images, **labels)
    return tmp_path


def _slim(*arguments: object) -> Result:
    own = ("net.pt", "--arch", "net.py:build", "--input-shape", "1,1,8,8", "--percent", 0.5, "--round-to", 1)
    return CliRunner().invoke(app, ["slim", "--no-bench", *[str(a) for a in (*own, *arguments)]])


def _report(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


def test_the_command_recovers_and_says_what_each_step_reached(folder: Path) -> None:
    """With unlabelled images the raw cut becomes a finished network, step by step, and that is what is saved."""
    result = _slim("--calibration", "more.npz", "--data", "data.npz", "--json", "report.json", "--save", "small.pt")
    assert result.exit_code == 0, result.output
    assert "NOT RECOVERED" not in result.stdout
    assert "absorbed" in result.stdout
    report = _report(folder)
    assert report["recovered"] is True
    assert report["calibration"] == "more.npz (100 inputs)"
    stages = report["stages"]
    assert isinstance(stages, list)
    assert [stage["name"] for stage in stages] == ["cut", "absorbed", "recalibrated"]
    assert stages[1]["distance"] < stages[0]["distance"]
    kept = [stage for stage in stages if stage["kept"]]
    assert report["accuracy"]["pruned"] == kept[-1]["accuracy"]  # type: ignore[index]
    again = compress.load(folder / "small.pt", arch="net.py:build")
    data = open_data("data.npz", preprocessing=None, channels=1, size=(8, 8))
    assert evaluate(again, data).loss == pytest.approx(kept[-1]["accuracy"]["loss"], rel=1e-5)


def test_without_labels_agreement_is_on_inputs_set_aside(folder: Path) -> None:
    """Where there is no accuracy, the two networks are compared on images that recovery did not see."""
    assert _slim("--calibration", "more.npz", "--json", "report.json").exit_code == 0
    report = _report(folder)
    assert report["agreement_on"] == "calibration inputs that recovery did not see"
    assert report["accuracy"] == {"original": None, "masked": None, "pruned": None}


def test_recovery_can_be_refused(folder: Path) -> None:
    """--no-recover leaves the raw cut, and says so."""
    result = _slim("--calibration", "more.npz", "--no-recover", "--json", "report.json")
    assert result.exit_code == 0, result.output
    assert "NOT RECOVERED" in result.stdout
    assert _report(folder)["stages"] == []


def test_reported_images_are_never_learned_from(folder: Path) -> None:
    """The same file as --data and --calibration is refused, also through another path to it."""
    for other in ("data.npz", folder / "data.npz"):
        result = _slim("--data", "data.npz", "--calibration", other)
        assert result.exit_code == 2
        assert "same images" in result.stderr


def test_python_takes_calibration_inputs(folder: Path) -> None:
    """`slim(calibration=...)` takes one tensor or batches, leaves the model as it was, and reports the steps."""
    net = compress.load(folder / "net.pt", arch="net.py:build", input_shape=(1, 1, 8, 8))
    x = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    raw = compress.slim(net, x[:2], percent=0.5, round_to=1)
    for given in (x, list(x.split(40))):
        done = compress.slim(net, x[:2], percent=0.5, round_to=1, calibration=given)
        assert done.report.recovered
        assert distance(net, done.model, [x]) < 0.5 * distance(net, raw.model, [x])
    with pytest.raises(DataError, match="at least two inputs"):
        compress.slim(net, x[:2], percent=0.5, round_to=1, calibration=x[:1])


def test_a_network_of_one_batch_size_is_recovered() -> None:
    """Where the batch is fixed, inputs come in batches of that size and no other."""
    batches = calibration_of(torch.rand(11, 3), 256, fixed=2)
    assert {len(batch) for batch in batches.batches} == {2}
    assert batches.aside is not None
    assert len(batches.aside) == 2
    assert batches.inputs == 8


def test_shipped_checkpoint_at_a_quarter_of_its_macs() -> None:
    """Half of every group leaves: 10 % are right after the cut, and at most 2 points are lost after recovery."""
    network = read_checkpoint(MODEL, arch=f"{ROOT}/models/resnet.py:resnet14")
    data, more = (
        open_data(str(IMAGES / f"{name}.npz"), preprocessing=network.preprocessing, channels=1, size=(28, 28))
        for name in ("test", "calibration")
    )
    inputs = calibration_batch((1, 1, 28, 28), more, 400)
    done = compress.slim(
        network.module,
        network.example,
        0.5,
        scope="layer",
        importance="l2",
        round_to=8,
        verify=False,
        calibration=inputs,
    )
    costs = done.report.costs_after.macs / done.report.costs_before.macs
    before, after = (evaluate(module, data, limit=500).top1 for module in (network.module, done.model))
    assert costs < 0.26
    assert after > before - 0.02
