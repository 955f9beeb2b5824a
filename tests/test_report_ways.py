"""Pages about the way to a cut, about two files compared, and about files measured with their accuracy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_report_page import SLIM
from torch import nn
from typer.testing import CliRunner, Result

from compress.cli import app
from compress.core.types import Preprocessing
from compress.evaluation import evaluate, open_data
from compress.export import export
from compress.pipeline.deploy import preprocessing_json
from compress.report.page.build import write_report

TRIALS = [
    {"asked": left, "left": left, "macs": round(1000 * left), "reached": top1, "holds": top1 >= 0.93, "seconds": 2.0}
    for left, top1 in ((0.5, 0.94), (0.2, 0.9), (0.4, 0.93))
]
SEARCH = {
    "bound": "at most 1 points of top-1 lost",
    "on": "test.npz (30 images)",
    "original": 0.94,
    "least": 0.93,
    "trials": TRIALS,
    "ended": "the bracket is narrow",
}
STEPS = [
    {"macs": macs, "parameters": macs // 10, "max_relative_error": 0.0, "reached": reached, "seconds": 1.0}
    for macs, reached in ((700, {"accuracy": {"top1": 0.94}}), (400, {"accuracy": {"top1": 0.93}}))
]
DOT = re.compile(r'class="dot s(\d)"[^>]*style="left:([\d.]+)%;bottom:([\d.]+)%" data-tip="([^"]*)"')


def page_of(folder: Path, data: dict[str, Any], suffix: str = ".html") -> str:
    """The page of one run."""
    path, out = folder / "run.json", folder / f"page{suffix}"
    path.write_text(json.dumps(data), encoding="utf-8")
    write_report([path], out)
    return out.read_text(encoding="utf-8")


def test_the_search_is_a_line_with_its_end(tmp_path: Path) -> None:
    """Tries and original are dots in the order of their MACs; one dot and one row are of the cut that was kept."""
    page = page_of(tmp_path, SLIM | {"search": SEARCH})
    drawn = page[page.index("The search for the smallest network") :]
    dots = DOT.findall(drawn[: drawn.index("</section>")])
    tried = [(float(x), text) for series, x, _, text in dots if series == "0"]
    assert [text.split(":")[0] for _, text in tried] == ["cut 2", "cut 3", "cut 1", "the original"]
    assert [x for x, _ in tried] == sorted(x for x, _ in tried)
    assert [text for series, _, _, text in dots if series == "2"] == ["cut 3: 93.00 % at 40.0 %"]
    assert drawn.count(">kept</td>") == 1
    assert "Ended: the bracket is narrow." in drawn
    text = page_of(tmp_path, SLIM | {"search": SEARCH}, ".md")
    assert "| 3 | 400 | 40.0 % | 93.00 % | kept | 2 s |" in text
    assert "| 2 | 200 | 20.0 % | 90.00 % | no | 2 s |" in text


def test_steps_are_a_line_and_rows(tmp_path: Path) -> None:
    """Each step has its MACs and what was reached after it; without a measurement there are rows alone."""
    text = page_of(tmp_path, SLIM | {"steps": STEPS}, ".md")
    assert "| 1 | 700 | 70.0 % | 70 | top-1 94.00 % | 1 s |" in text
    assert "step 2: 93.00 %; step 1: 94.00 %" in text
    bare = page_of(tmp_path, SLIM | {"steps": [step | {"reached": None} for step in STEPS]}, ".md")
    assert "| 2 | 400 | 40.0 % | 40 |  | 1 s |" in bare
    assert "MACs left" not in bare
    assert "Cut and won back in steps" not in page_of(tmp_path, SLIM)


def network(shift: float = 0.0) -> nn.Module:
    """A small network with fixed random weights; `shift` favours one class."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)).eval()
    with torch.no_grad():
        net[3].bias[1] += shift
    return net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ONNX files that differ in one bias, and images with labels that suit the first."""
    place = tmp_path_factory.mktemp("files")
    used = Preprocessing(mean=(0.5,), std=(0.25,))
    about = {"compress.input_shape": json.dumps([2, 1, 8, 8]), "compress.preprocessing": preprocessing_json(used)}
    for name, shift in (("one", 0.0), ("two", 0.4)):
        export(network(shift), (torch.zeros(2, 1, 8, 8),), place / f"{name}.onnx", about=about)
    pixels = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 1), dtype=np.uint8)
    with torch.no_grad():
        wanted = network()(torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.25)).argmax(1)
    np.savez(place / "images.npz", x=pixels, y=wanted.numpy())
    return place


def run(folder: Path, *arguments: object) -> Result:
    """Run the program; files are those of the folder."""
    named = [str(folder / a) if str(a).endswith((".onnx", ".npz", ".json", ".svg")) else str(a) for a in arguments]
    return CliRunner().invoke(app, named)


def test_a_comparison_of_two_files_is_a_chapter(folder: Path, tmp_path: Path) -> None:
    """What `verify --json` writes becomes figures, a word, classes and the versions to do it again."""
    done = run(folder, "verify", "one.onnx", "two.onnx", "--data", "images.npz", "--json", "verify.json")
    assert done.exit_code == 2, done.output
    told = json.loads((folder / "verify.json").read_text(encoding="utf-8"))
    page = page_of(tmp_path, told)
    assert '<span class="badge bad">different</span>' in page
    points = 100 * (told["second"]["accuracy"]["top1"] - told["first"]["accuracy"]["top1"])
    assert points < -3
    for text in (f"{points:+.2f} points", "at most 0.0001 asked", f"{100 * told['agreement']:.2f} %", "onnxruntime 1."):
        assert text in page, text
    assert len(re.findall(r'class="bar[ "]', page)) == 3
    assert '<span class="key before"></span>one.onnx' in page
    same = page_of(tmp_path, told | {"same": True, "least_agreement": 0.5}, ".md")
    assert "## run (the same)" in same
    assert "at least 50.00 % asked" in same


def test_bench_tells_what_every_file_reaches(folder: Path, tmp_path: Path) -> None:
    """--data puts each file's accuracy into table, JSON, picture and page; without it there is no such plot."""
    how = ("--rounds", 5, "--seconds", 0.1, "--no-memory", "--json", "bench.json", "--plot", "front.svg")
    done = run(folder, "bench", "one.onnx", "two.onnx", "--data", "images.npz", *how)
    assert done.exit_code == 0, done.output
    assert "top-1" in done.stdout
    told = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    used = Preprocessing(mean=(0.5,), std=(0.25,))
    data = open_data(str(folder / "images.npz"), preprocessing=used, channels=1, size=(8, 8))
    reached = [evaluate(network(shift), data).top1 for shift in (0.0, 0.4)]
    assert [row["accuracy"] for row in told["standings"]] == reached
    assert reached[0] == 1.0 > reached[1]
    assert "top-1" in (folder / "front.svg").read_text(encoding="utf-8")
    page = page_of(tmp_path, told)
    drawn = page[page.index("accuracy against latency") :]
    assert {text.split(": ")[1] for _, _, _, text in DOT.findall(drawn)} == {f"{100 * top1:.2f} %" for top1 in reached}
    without = [row | {"accuracy": None} for row in told["standings"]]
    assert "accuracy against latency" not in page_of(tmp_path, told | {"standings": without})
