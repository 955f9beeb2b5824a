"""What a run is told as: the table in the terminal, the JSON file."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from compress.core.choosing import Scope
from compress.core.errors import UsageError
from compress.core.types import Accuracy, Costs, Exported, Speedup, Verdict
from compress.report.jsonfile import UNITS, to_json, write_json
from compress.report.terminal import show
from compress.report.types import CutFacts, FileSizes, GroupRow, SlimReport, Source

GROUPS = (
    GroupRow(name="layer1", before=64, after=32),
    GroupRow(name="fc", before=10, after=10, pinned="the network's output"),
    GroupRow(name="stem[x]", before=3, after=3, pinned="the network's input [3]"),
)
ACCURACY = Accuracy(top1=0.92, top5=0.99, loss=0.31, per_class=(0.95, 0.89), images=1000)
REPORT = SlimReport(
    source=Source(name="net", kind="state_dict", input_shape=(1, 3, 32, 32), arch="torchvision:resnet18"),
    cut=CutFacts(
        asked="0.5 of the channels to leave",
        budget={"percent": {"value": 0.5}},
        scope=Scope.GLOBAL,
        importance="bn",
        criterion="|gamma|",
        round_to=16,
        round_reason="AVX-512",
        channels=64,
        removed=32,
        groups=GROUPS,
    ),
    verdict=Verdict(max_relative_error=3e-16, tolerance=1e-6, reference="the masked original"),
    delivered="your own class Net",
    delivered_why="its code follows the new widths",
    costs_before=Costs(parameters=4000, macs=1_000_000),
    costs_after=Costs(parameters=1000, macs=250_000),
)
FULL = replace(
    REPORT,
    file_sizes=FileSizes(before=4096, after=1024, what="ONNX"),
    accuracy_original=ACCURACY,
    accuracy_masked=replace(ACCURACY, top1=0.5),
    accuracy_pruned=replace(ACCURACY, top1=0.5),
    data="digits",
    exported=(Exported(path="a.onnx", target="onnx", bytes=1024, max_relative_error=2e-7, batch_sizes=(1, 3)),),
    speedups=(
        Speedup(
            runtime="onnxruntime",
            device="cpu",
            threads=1,
            batch=1,
            before=0.02,
            after=0.01,
            ratio=0.5,
            low=0.45,
            high=0.55,
            rounds=30,
        ),
    ),
    seconds={"trace": 0.25},
    command="compress slim net.pt",
    warnings=("mind [this]",),
)


def _shown(report: SlimReport, width: int = 120) -> str:
    stream = io.StringIO()
    show(report, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize(
    "words",
    [
        "32 of 64 prunable channels removed",
        "0.250",
        "-42.00 points",
        "89.00 % (1)",
        "0.500 [0.450, 0.550]",
        "exact: largest relative error 3.0e-16",
        "13 channels had to stay",
        "1 group: the network's input [3]",
        "a.onnx",
        "mind [this]",
        "1 thread, batch 1: median of 30 interleaved rounds",
        "trace 250 ms",
    ],
)
def test_the_table_says_it(words: str) -> None:
    """Every measured figure is in the terminal, brackets in names included."""
    assert words in _shown(FULL)


def test_a_raw_cut_is_announced_loudly() -> None:
    """Nobody takes an unrecovered network for the finished one; a recovered one is not shouted at."""
    assert "NOT RECOVERED" in _shown(FULL)
    assert "its accuracy is unknown" in " ".join(_shown(REPORT).split())
    assert "NOT RECOVERED" not in _shown(replace(FULL, recovered=True))


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (None, "NOT CHECKED"),
        (Verdict(max_relative_error=1e-3, tolerance=1e-6, reference="r"), "NOT EXACT"),
        (Verdict(max_relative_error=float("nan"), tolerance=1e-6, reference="r"), "NOT EXACT"),
    ],
)
def test_what_is_not_exact_is_not_called_exact(verdict: Verdict | None, words: str) -> None:
    """A missing, failed or undefined check is named."""
    assert words in _shown(replace(REPORT, verdict=verdict))


def test_agreement_is_not_sold_as_accuracy() -> None:
    """Without labels the table shows agreement with the original, and says that it is that."""
    text = _shown(replace(REPORT, agreement=0.75, agreement_on="32 random inputs"))
    assert "75.00 %" in text
    assert "agreement with the original, not accuracy" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_width_of_terminal_works(width: int) -> None:
    """Narrow terminals wrap; no line is longer than the terminal."""
    assert max(map(len, _shown(FULL, width).splitlines())) <= width


def test_json_holds_every_figure_with_its_unit() -> None:
    """The file can be read by a program: plain numbers, units named once."""
    data = json.loads(to_json(FULL))
    assert data["costs"]["after"] == {"parameters": 1000, "macs": 250_000}
    assert data["accuracy"]["masked"] == data["accuracy"]["pruned"]
    assert data["accuracy"]["original"]["per_class"] == [0.95, 0.89]
    assert data["exactness"]["exact"] is True
    assert data["latency"][0]["ratio"] == 0.5
    assert data["exported"][0]["bytes"] == 1024
    assert data["cut"]["scope"] == "global"
    assert data["recovered"] is False
    assert data["units"] == dict(UNITS)


def test_json_has_no_numbers_that_json_lacks() -> None:
    """NaN and infinity become null."""
    verdict = Verdict(max_relative_error=float("nan"), tolerance=1e-6, reference="r")
    data = json.loads(to_json(replace(REPORT, verdict=verdict, seconds={"x": float("inf")})))
    assert data["exactness"]["max_relative_error"] is None
    assert data["exactness"]["exact"] is False
    assert data["seconds"] == {"x": None}


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A report lands complete, and an impossible place is the user's error."""
    write_json(REPORT, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["format"] == "compress-report-1"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    with pytest.raises(UsageError, match="cannot write"):
        write_json(REPORT, tmp_path / "none" / "report.json")
