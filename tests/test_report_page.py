"""The page that `compress report` makes: what it shows, what it refuses, and how it behaves in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.core.errors import UsageError
from compress.report.page.blocks import Axis, plot
from compress.report.page.build import write_report
from compress.report.page.runs import kind_of

CHROMIUM = Path("/usr/bin/chromium")
ACCURACY = {"top1": 0.93, "top5": 1.0, "loss": 0.2, "per_class": [0.9, 0.8, 1.0], "images": 30}
SLIM: dict[str, Any] = {
    "format": "compress-report-1",
    "command": "compress slim net.pt --percent 0.5",
    "seed": 0,
    "threads": 2,
    "batch": 1,
    "versions": {"python": "3.11"},
    "machine": {"cpu": "a CPU", "cores": 2, "isa": ["avx2"], "load": 0.5, "os": "Linux"},
    "source": {"name": "net", "arch": "net.py:build"},
    "cut": {
        "importance": "l2",
        "removed": 6,
        "channels": 12,
        "groups": [
            {"name": "a", "before": 8, "after": 2, "pinned": None},
            {"name": "head", "before": 4, "after": 4, "pinned": "output of the <network>"},
        ],
    },
    "exactness": {"max_relative_error": 1e-16, "tolerance": 1e-6, "reference": "the masked original", "exact": True},
    "delivered": {"what": "your own class", "why": ""},
    "calibration": "images (100 inputs)",
    "stages": [
        {"name": "cut", "accuracy": ACCURACY | {"top1": 0.5}, "agreement": 0.5, "distance": 0.4, "seconds": 0.0},
        {
            "name": "absorbed",
            "accuracy": ACCURACY,
            "agreement": 0.9,
            "distance": 0.1,
            "seconds": 1.5,
            "note": "2 layers",
        },
        {"name": "recalibrated", "accuracy": None, "agreement": None, "distance": None, "seconds": 1.0, "kept": False},
    ],
    "costs": {"before": {"macs": 1000, "parameters": 100}, "after": {"macs": 400, "parameters": 30}},
    "file_bytes": {"before": 4000, "after": 1200, "what": "ONNX"},
    "data": "test images",
    "accuracy": {"original": ACCURACY | {"top1": 0.94}, "masked": None, "pruned": ACCURACY},
    "agreement": None,
    "latency": [
        {
            "runtime": "onnxruntime",
            "device": "cpu",
            "threads": 2,
            "batch": 1,
            "before": 0.002,
            "after": 0.001,
            "ratio": 0.5,
            "low": 0.45,
            "high": 0.55,
            "rounds": 30,
        }
    ],
    "exported": [{"path": "small.onnx", "target": "ONNX", "bytes": 1200, "max_relative_error": 1e-7}],
    "saved": None,
    "plan_out": None,
    "seconds": {"load": 1.0},
    "warnings": ["a warning"],
}


def _file(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(deepcopy(SLIM) | changes))
    return path


def _page(folder: Path, *names: str) -> str:
    out = folder / "page.html"
    write_report([_file(folder, name) for name in names], out)
    return out.read_text()


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """No address is loaded, and text from a file cannot become markup."""
    page = _page(tmp_path, "one")
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*\"|url\(|@import|https?://", page)
    assert "output of the &lt;network&gt;" in page
    assert "<network>" not in page


def test_the_figures_are_the_runs(tmp_path: Path) -> None:
    """Headline, channels, steps and the command are those of the JSON."""
    page = _page(tmp_path, "one")
    for text in ("93.00 %", "-1.00 points", "0.400 of it", "0.300 of it", "8 → 2", "taken back", SLIM["command"]):
        assert text in page, text
    assert len(re.findall(r'class="bar[ "]', page)) == 3 + 2 + 1  # classes, groups, latencies
    assert page.count('class="dot') == 3  # original, cut, absorbed


def test_markdown_has_the_same_figures(tmp_path: Path) -> None:
    """The Markdown is for pull requests: tables, no markup, the same numbers."""
    out = tmp_path / "page.md"
    write_report([_file(tmp_path, "one")], out)
    text = out.read_text()
    assert "| top-1 accuracy | 94.00 % | 93.00 % | -1.00 points |" in text
    assert "| a | 8 → 2 |" in text
    assert "<div" not in text


def test_several_runs_are_compared(tmp_path: Path) -> None:
    """With more than one cut there is a front of accuracy against cost, and a button for each run."""
    page = _page(tmp_path, "one", "two", "three")
    assert page.count("data-show=") == 4
    assert page.count('class="chapter"') == 4
    assert page.count('class="dot') == 3 * 3 + 2 * 3  # each run's steps, and two fronts


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("not json", "is not JSON"),
        ("[1]", "no JSON object"),
        ('{"format": "something-1"}', "not the JSON of a command"),
        ('{"format": "compress-report-1"}', "lacks what a report"),
    ],
)
def test_a_wrong_file_is_one_message(tmp_path: Path, content: str, words: str) -> None:
    """What is no JSON of ours is refused by name, with exit code 2, and nothing is written."""
    path, out = tmp_path / "wrong.json", tmp_path / "page.html"
    path.write_text(content)
    done = CliRunner().invoke(app, ["report", str(path), "--out", str(out)])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
    assert not out.exists()


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    """A report is HTML or Markdown."""
    with pytest.raises(UsageError, match=r"is \.html or \.md"):
        write_report([_file(tmp_path, "one")], tmp_path / "page.pdf")


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    """One line, and the file is there."""
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(_file(tmp_path, "one")), "--out", str(out)])
    assert (done.exit_code, done.output) == (0, f"wrote {out} (1 run)\n")
    assert out.exists()


def test_axes_have_round_ends() -> None:
    """Every value lies on the axis, one value alone too, and what is not finite has no place."""
    for values in ([0.2, 9.7], [93.1], [-3.0, 4.0], [0.0, 0.0], [1e-5, 2e-5]):
        axis = Axis.over(values)
        assert all(0 <= axis.place(value) <= 1 for value in values)
        assert 2 <= len(axis.ticks()) <= 12
    drawn = plot("", "", "", [("s", [(0, 1.0, "a"), (1, float("nan"), "b")])])
    assert [dot.text for dot in drawn.series[0].dots] == ["a"]


def test_kinds_are_read_from_the_format() -> None:
    """A file tells which command wrote it."""
    assert [kind_of({"format": f}) for f in ("compress-report-1", "compress-maps-2", "else")] == ["slim", "maps", ""]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip("there is no /usr/bin/chromium")
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-background-networking"]
        )
        yield started
        started.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_in_a_browser(tmp_path: Path, browser: Any, width: int, scheme: str) -> None:
    """It opens without an error, fits the width, shows one run at a time, tells values on hover, sorts its tables."""
    _page(tmp_path, "one", "two")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".chapter:visible").count() == 1
    assert page.locator("#all .dot").count() == 4
    page.get_by_role("button", name="two").click()
    assert page.locator(".chapter:visible").get_attribute("id") == "run2"
    bars = page.locator("#run2 .bar")
    assert bars.count() == 6
    widths = (
        page.locator("#run2 .bar", has_text="8 → 2").locator("i").evaluate_all("all => all.map(i => i.offsetWidth)")
    )
    assert widths[1] == pytest.approx(widths[0] / 4, abs=1)
    page.locator("#run2 .bar", has_text="4 → 4").hover()
    assert "stays: output of the <network>" in page.locator("#tip").inner_text()
    page.locator("#run2 th button", has_text="top-1").click()
    page.locator("#run2 th button", has_text="top-1").click()
    assert page.locator("#run2 tbody tr").first.inner_text().startswith("absorbed")
    page.close()
    assert told == []


def test_an_inspection_says_why_groups_stay(tmp_path: Path) -> None:
    """A page from `inspect` names every group, what it carries, and operator and line for what must stay."""
    reason = {"why": "output of the network", "operator": "aten.addmm", "where": "fc (net.py:3)"}
    group = {"channels": 8, "prunable": True, "pinned": [], "macs": 600, "parameters": 50, "name": "a"}
    data = {
        "format": "compress-inspect-1",
        "network": "net.pt",
        "macs": 1000,
        "parameters": 90,
        "outputs": 12,
        "prunable_outputs": 8,
        "groups": [group, group | {"name": "fc", "prunable": False, "pinned": [reason], "macs": 400}],
    }
    path, out = tmp_path / "inspect.json", tmp_path / "page.html"
    path.write_text(json.dumps(data))
    write_report([path], out)
    page = out.read_text()
    assert "66.67 %" in page
    assert "output of the network, aten.addmm at fc (net.py:3)" in page
    assert re.findall(r'class="after" style="width:([\d.]+)%', page) == ["100.000", "0.000"]
    assert "Do it again" not in page


def _written(folder: Path, data: dict[str, Any]) -> str:
    path, out = folder / "run.json", folder / "page.html"
    path.write_text(json.dumps(data))
    write_report([path], out)
    return out.read_text()


def test_a_sweep_is_a_line_a_criterion(tmp_path: Path) -> None:
    """Every point of every criterion is a dot at its place, the uncut network the first; the command can be copied."""
    reached = [
        {"removed": k, "shape": [4 - k, 3], "reached": {"top1": v, "agreement": v}} for k, v in ((1, 0.8), (3, 0.6))
    ]
    data = {
        "format": "compress-sweep-1",
        "argv": ["sweep", "a net.pt"],
        "network": {"name": "net"},
        "data": {"name": "images"},
        "layer": "conv",
        "what": "its channels",
        "channels": 4,
        "images": 10,
        "ranked_on": "other images",
        "exactness": {"max_relative_error": 0.0},
        "original": {"top1": 1.0, "agreement": 1.0},
        "curves": [{"importance": name, "points": reached} for name in ("l1", "bn")],
        "seconds": {"prepared": 1.0, "full": 5.0, "total": 2.0},
        "share_of_full": 0.3,
    }
    page = _written(tmp_path, data)
    dots = re.findall(r'class="dot s(\d)"[^>]*style="left:([\d.]+)%;bottom:([\d.]+)%" data-tip="([^"]*)"', page)
    assert len(dots) == 2 * 3
    assert dots[2] == ("0", "100.000", "0.000", "l1, 3 removed: 60.00 %")
    assert "compress sweep &#39;a net.pt&#39;" in page


def test_a_comparison_says_only_what_it_may(tmp_path: Path) -> None:
    """An interval that holds 1 is "not distinguishable"; layers that got slower are as long as they take."""
    first = {
        "label": "a.onnx",
        "backend": "onnxruntime",
        "device": "cpu",
        "batch": 1,
        "threads": 1,
        "file_bytes": 2048,
        "seconds": {"p50": 0.002, "p90": 0.003, "p99": 0.004},
        "throughput": 500.0,
        "ratio": None,
        "peak": None,
    }
    alike = first | {"label": "b.onnx", "ratio": {"ratio": 1.01, "low": 0.9, "high": 1.1}}
    faster = first | {"label": "c.onnx", "ratio": {"ratio": 0.5, "low": 0.4, "high": 0.6}}
    layer = {"name": "conv", "weight": [4, 4], "macs": 100, "seconds": 1e-5}
    change = {"before": layer, "after": layer | {"seconds": 2e-5, "macs": 50}, "words": "small"}
    layers = {"label": "c.onnx", "against": "a.onnx", "changes": [change], "sentences": ["It is small."]}
    page = _written(tmp_path, {"format": "compress-bench-1", "standings": [first, alike, faster], "layers": [layers]})
    assert page.count("not distinguishable") == 2  # in the table, and on hover
    assert "0.500 of the first [0.400, 0.600]" in page
    assert 'class="before" style="width:50.000%"></i><i class="after" style="width:100.000%"' in page


def test_costs_are_counted_layer_by_layer(tmp_path: Path) -> None:
    """Totals, a bar for every layer that multiplies, a row for every layer."""
    layer = {"operator": "conv", "macs": 100, "parameters": 9, "activations": 4, "traffic": 64, "intensity": 3.1}
    layers = [layer | {"name": "a"}, layer | {"name": "b", "macs": 50}, layer | {"name": "relu", "macs": 0}]
    total = {"macs": 150, "parameters": 9, "activations": 4, "traffic": 64}
    page = _written(tmp_path, {"format": "compress-flops-1", "name": "net", "total": total, "layers": layers})
    assert re.findall(r'class="after" style="width:([\d.]+)%', page) == ["100.000", "50.000"]
    assert page.count("<tr><td") == 3


def test_sensitivity_is_a_heat_map(tmp_path: Path) -> None:
    """The colour is the loss relative to the largest; what cannot be cut stays blank; blocks come best first."""
    tally = [None if v is None else {"top1": v, "agreement": 0.0} for v in (0.9, 0.65, 0.4, None)]
    block = {"name": "layer1.0", "macs": 10, "parameters": 5, "reached": tally[1]}
    data = {
        "format": "compress-sensitivity-1",
        "network": {"name": "net"},
        "importance": "l1",
        "ranked_on": "images",
        "shares": [0.1, 0.5, 0.7, 0.9],
        "original": tally[0],
        "groups": [{"name": "a", "channels": 8, "reached": tally}],
        "blocks": [block | {"name": "layer1.1", "reached": tally[2]}, block],
    }
    page = _written(tmp_path, data)
    assert re.findall(r'style="--shade:([\d.]+)">([\d.]+)', page) == [("0.0", "90.0"), ("0.5", "65.0"), ("1.0", "40.0")]
    assert page.index("-25.00 points") < page.index("-50.00 points")


def test_maps_share_one_colour_scale(tmp_path: Path) -> None:
    """Each map is a picture whose pixels are coloured by one scale over all maps; dead channels are named."""
    import base64
    import io

    from PIL import Image

    data = {
        "format": "compress-maps-1",
        "network": {"name": "net"},
        "data": {"name": "images"},
        "layer": "conv",
        "channels": 3,
        "size": [2, 2],
        "images": 5,
        "activation": [0.5, 1.0, 0.0],
        "dead": [2],
        "top": [{"channel": 1, "map": [[0.0, 1.0], [1.0, 0.5]]}, {"channel": 0, "map": [[0.5, 0.5], [0.5, 0.5]]}],
    }
    page = _written(tmp_path, data)
    found = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    first, second = (Image.open(io.BytesIO(png)) for png in found)
    assert (first.size, second.size) == ((2, 2), (2, 2))
    assert first.getpixel((1, 1)) == second.getpixel((0, 0))
    assert first.getpixel((0, 0)) != first.getpixel((1, 0))
    assert "1 channels: 2" in page


def test_a_training_shows_how_it_learned(tmp_path: Path) -> None:
    """A dot an epoch for loss and held-out accuracy, a bar a class and a bar a bin of the scales."""
    epochs = [{"number": n, "loss": 1.0 / n, "score": {"right": 0.5 + n / 10, "loss": 1.0}} for n in (1, 2, 3)]
    data = {
        "format": "compress-train-1",
        "arch": "net.py:build",
        "trained_on": "images",
        "parameters": 100,
        "recipe": {"name": "plain", "epochs": 3, "lr": 0.1},
        "training": {"epochs": epochs, "steps": 30, "seconds": 4.0},
        "accuracy": {"top1": 0.8, "per_class": [0.9, 0.7]},
        "accuracy_on": "test images",
        "class_names": ["cat", "dog"],
        "scales": {"number": 10, "near_zero": 0.4, "edges": [0.0, 0.1, 0.2], "counts": [4, 6]},
    }
    page = _written(tmp_path, data)
    assert page.count('class="dot') == 3 + 3
    assert len(re.findall(r'class="bar[ "]', page)) == 2 + 2
    assert page.index("dog") < page.index("cat")
    assert "40.00 %" in page
