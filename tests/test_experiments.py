"""The published experiments in benchmarks/experiments: what their scripts compute themselves, and what is committed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import compress

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "benchmarks" / "experiments"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script of the folder by its name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


@pytest.fixture
def common(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The shared module, with a repository of its own and commands that only write what they were called with."""
    module: ModuleType = script("common")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def test_a_command_runs_once(
    common: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What was done is not done again; another option or a missing output is; a failing command ends the script."""
    called: list[list[str]] = []

    def answer(argv: list[str]) -> int:
        called.append(argv)
        (tmp_path / argv[argv.index("--json") + 1]).write_text(json.dumps({"argv": argv}))
        (tmp_path / argv[argv.index("--out") + 1]).write_text("weights")
        return 3 if "--fail" in argv else 0

    monkeypatch.setattr(common, "called", answer)
    run = common.Experiment("e9")
    for _ in range(2):
        run.run("train", "train", "--epochs", "5", "--out", run.file("net.pt"), trains=True)
    assert len(called) == 1
    assert called[0][-3:] == ["--checkpoint-every", "200", "--resume"]
    run.run("train", "train", "--epochs", "6", "--out", run.file("net.pt"), trains=True)
    assert len(called) == 2
    (tmp_path / run.file("net.pt")).unlink()
    run.run("train", "train", "--epochs", "6", "--out", run.file("net.pt"), trains=True)
    assert len(called) == 3
    assert "$ compress train --epochs 6 --out build/experiments/e9/net.pt" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        run.run("train", "train", "--fail", "--out", run.file("net.pt"))
    assert stopped.value.code == 3


def test_missing_images_are_told(script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the data set a script ends at once, and says which package has it."""
    with pytest.raises(SystemExit) as stopped:
        script("common").require_images(f"fashion-mnist:{tmp_path}")
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert str(tmp_path) in told
    assert "dataset-fashion-mnist" in told


def test_the_threshold_is_what_slim_cuts_by(script: Any) -> None:
    """Of every layer, exactly the channels whose scale is below the global threshold leave."""
    e1, vgg = script("e1"), _vgg()
    torch.manual_seed(0)
    norms = [part for part in vgg.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, -1, 1)
        nn.init.uniform_(norm.bias, -1, 1)
    layers = [norm.weight.detach().abs().tolist() for norm in norms]
    limit = e1.threshold(layers, 0.5)
    result = compress.slim(vgg, torch.rand(2, 1, 16, 16), percent=0.5, importance="bn", round_to=1)
    left = [part.weight.detach().abs().tolist() for part in result.model.modules() if isinstance(part, nn.BatchNorm2d)]
    assert left == [[value for value in layer if value >= limit] for layer in layers]
    assert e1.below(layers, limit) == 28


def _vgg() -> nn.Module:
    names: dict[str, Any] = {}
    exec((ROOT / "models" / "vgg.py").read_text(encoding="utf-8"), names)
    made: nn.Module = names["vgg11"](in_channels=1, cfg=(8, "M", 8, "M", 8, 8, "M", 8, "M", 16)).eval()
    return made


def test_pairs_are_of_two_images_and_one_in_ten_is_of_the_same_class(script: Any) -> None:
    """No image is paired with itself, labels say whether the classes are equal, and the same seed draws the same."""
    pairs = script("e4").pairs
    images = np.repeat(np.arange(200, dtype=np.uint8), 4).reshape(200, 2, 2)
    labels = np.arange(200) % 10
    x, y = pairs(images, labels, 5000, 3)
    first, second = x[:, 0, 0, 0], x[:, 0, 0, 1]
    assert (first != second).all()
    assert (y == (first % 10 == second % 10)).all()
    assert abs(y.mean() - 19 / 199) < 0.01
    assert np.array_equal(pairs(images, labels, 5000, 3)[0], x)


@pytest.mark.parametrize("name", sorted(path.stem for path in (SCRIPTS / "results").glob("e?.json")))
def test_the_committed_tables_are_made_from_the_committed_figures(script: Any, name: str) -> None:
    """Markdown and JSON of an experiment belong to one run, and every picture it shows is there."""
    found = json.loads((SCRIPTS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    text = (SCRIPTS / "results" / f"{name}.md").read_text(encoding="utf-8")
    assert text == script(name).told(found).rstrip() + "\n"
    pictures = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert pictures
    assert all(0 < (SCRIPTS / "results" / picture).stat().st_size < 200_000 for picture in pictures)


def test_masked_and_pruned_are_equal_in_the_committed_results() -> None:
    """E1's claim, exactly: silencing the channels and removing them give the same accuracy, for every penalty."""
    found = json.loads((SCRIPTS / "results" / "e1.json").read_text(encoding="utf-8"))
    cuts = [*found["penalties"].values(), found["tuned"]]
    assert all(cut["masked"] == cut["pruned"] for cut in cuts)
    assert all(cut["max_relative_error"] < 1e-12 for cut in cuts)
