"""The command line alone: what it hands to the pipeline, what it refuses at once, how it ends."""

from __future__ import annotations

import dataclasses
import inspect
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_report import REPORT
from typer.testing import CliRunner, Result

import compress
from compress.cli import app, checks
from compress.cli.progress import TerminalProgress, progress_for
from compress.cli.records import flat
from compress.cli.slim import slim
from compress.core.choosing import Attention, Scope
from compress.core.errors import PlanError, UsageError
from compress.core.progress import Silent


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A file that exists; the pipeline that would read it is replaced."""
    path = tmp_path / "net.pt"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, list[Any]]]:
    """Run the program with a pipeline that only notes what it was asked for, or raises `failure`."""
    import compress.pipeline

    def run(*arguments: object, failure: BaseException | None = None) -> tuple[Result, list[Any]]:
        asked: list[Any] = []

        def run_slim(options: Any, progress: Any) -> Any:
            asked.append(options)
            with progress.stage("trace", 2) as advance:
                advance(1, 2)
            if failure is not None:
                raise failure
            return REPORT

        monkeypatch.setattr(compress.pipeline, "run_slim", run_slim)
        return CliRunner().invoke(app, [str(argument) for argument in arguments]), asked

    return run


def test_the_options_are_the_pipelines() -> None:
    """Every field of SlimOptions is a parameter of the command, and the other way round."""
    from compress.pipeline import SlimOptions

    fields = {field.name for field in dataclasses.fields(SlimOptions)}
    assert set(inspect.signature(flat(slim)).parameters) == fields | {"quiet", "debug"}


def test_defaults_reach_the_pipeline(checkpoint: Path, invoke: Callable[..., Any]) -> None:
    """The short command asks for a global, verified, measured cut with automatic rounding."""
    result, asked = invoke("slim", checkpoint, "--percent", 0.5)
    assert result.exit_code == 0, result.output
    options = asked[0]
    assert (options.percent, options.scope, options.attention) == (0.5, Scope.GLOBAL, Attention.HEADS)
    assert (options.round_to, options.min_channels, options.keep, options.out) == (None, 1, (), ())
    assert (options.verify, options.bench, options.trust, options.seed) == (True, True, False, 0)


def test_values_are_read(checkpoint: Path, invoke: Callable[..., Any]) -> None:
    """Lists, shapes and repeated options arrive as tuples of the right type."""
    folder = checkpoint.parent
    arguments = "--round-to 8 --keep a.* --keep b --scope layer --attention dims --no-verify --no-bench --seed 3"
    numbers = "--input-shape 1,3,32,32 --mean 0.5,0.4,0.3 --std 1,1,0.5"
    outputs = ["--out", folder / "a.onnx", "--out", folder / "b.ts"]
    _, asked = invoke("slim", checkpoint, "-p", 0.1, *arguments.split(), *numbers.split(), *outputs)
    options = asked[0]
    assert (options.round_to, options.keep, options.scope, options.attention) == (8, ("a.*", "b"), "layer", "dims")
    assert (options.input_shape, options.mean, options.std) == ((1, 3, 32, 32), (0.5, 0.4, 0.3), (1.0, 1.0, 0.5))
    assert options.out == (folder / "a.onnx", folder / "b.ts")
    assert (options.verify, options.bench, options.seed) == (False, False, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "None of --percent, --macs, "),
        ("-p 1", "must be in [0, 1), got 1"),
        ("-p -0.1", "must be in [0, 1)"),
        ("-p nan", "must be in [0, 1), got nan"),
        ("-p 0.5 --plan none.json", "exclude each other"),
        ("--plan none.json", "no plan file none.json"),
        ("-p 0.5 --round-to half", "auto or a whole number"),
        ("-p 0.5 --round-to 0", "auto or a whole number"),
        ("-p 0.5 --input-shape 1,x", "numbers with commas"),
        ("-p 0.5 --input-shape 1,0,3", "at least 1"),
        ("-p 0.5 --mean 0.5", "belong together"),
        ("-p 0.5 --mean 0.5,0.5 --std 1", "--mean has 2 numbers"),
        ("-p 0.5 --mean 0.5 --std 0", "must be positive"),
        ("-p 0.5 --out small.tflite", "no format has the suffix '.tflite'"),
        ("-p 0.5 --out none/small.onnx", "does not exist"),
        ("-p 0.5 --json none/report.json", "does not exist"),
        ("-p 0.5 --save a.ts --out a.ts", "named twice"),
        ("-p 0.5 --save net.pt", "would overwrite an input"),
        ("-p 0.5 --scope all", "'global'"),
        ("-p 0.5 --data x.npz --calibration x.npz", "the same images"),
        ("-p 0.5 --size 4MB", "exclude each other"),
        ("--size 0", "--size must be a positive number"),
        ("-p 0.5 --ratio layer3", "GLOB=FRACTION"),
        ("-p 0.5 --ratio a=1.5", "GLOB=FRACTION"),
        ("-p 0.5 --max-ratio 2", "--max-ratio"),
        ("--macs 0.5 --steps 0", "--steps"),
        ("--max-drop 1", "measured on labelled images, and there are none"),
        ("--min-agreement 0.9", "measured on images, and there are none"),
        ("--max-drop 1 --min-agreement 0.9 --data x.npz", "exclude each other"),
        ("--max-drop 1 --data x.npz --params 0.5", "finds its own budget, and excludes --params"),
        ("--max-drop -1 --data x.npz", "must be in [0, 100)"),
        ("--max-drop 1 --data x.npz --time-budget soon", "must be a duration"),
        ("-p 0.5 --time-budget 10m", "ends a search, and none is asked for"),
        ("-p half", "--percent"),
        ("-p 0.5 --batch 0", "--batch"),
        ("-p 0.5 --sope layer", "--scope"),
    ],
)
def test_mistakes_are_told_before_any_work(
    arguments: str, words: str, checkpoint: Path, invoke: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake is one message with exit code 2, and the pipeline never starts."""
    monkeypatch.chdir(checkpoint.parent)
    result, asked = invoke("slim", "net.pt", *arguments.split())
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert not asked
    assert [path.name for path in checkpoint.parent.iterdir()] == ["net.pt"]


@pytest.mark.parametrize(("content", "words"), [(None, "no file"), (b"", "is empty")])
def test_a_checkpoint_that_cannot_be_one(
    content: bytes | None, words: str, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    """A missing and an empty file are told at once; so is a folder."""
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    assert words in invoke("slim", path, "-p", 0.5)[0].stderr
    assert "is a folder" in invoke("slim", tmp_path, "-p", 0.5)[0].stderr


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (
            PlanError("nothing can leave [x]", fix="ask for more"),
            2,
            "error: nothing can leave [x]\n  fix: ask for more",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("deep\ninside"), 1, "error: unexpected ValueError: deep inside"),
    ],
)
def test_every_failure_has_its_exit_code(
    failure: BaseException, code: int, words: str, checkpoint: Path, invoke: Callable[..., Any]
) -> None:
    """The input's fault is 2, ours is 1, Ctrl-C is 130; none shows a traceback unless asked to."""
    result, _ = invoke("slim", checkpoint, "-p", 0.5, failure=failure)
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_debug_shows_where_it_happened(checkpoint: Path, invoke: Callable[..., Any]) -> None:
    """--debug adds the traceback and changes nothing else."""
    result, _ = invoke("slim", checkpoint, "-p", 0.5, "--debug", failure=UsageError("odd"))
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "error: odd" in result.stderr


def test_the_table_goes_to_stdout_and_quiet_silences_it(checkpoint: Path, invoke: Callable[..., Any]) -> None:
    """What a run found is its output; --quiet leaves the files and the exit code."""
    assert "32 of 64 prunable channels removed" in invoke("slim", checkpoint, "-p", 0.5)[0].stdout
    assert invoke("slim", checkpoint, "-p", 0.5, "--quiet")[0].output == ""


def test_json_is_written(checkpoint: Path, invoke: Callable[..., Any]) -> None:
    """--json writes the report that the table shows."""
    path = checkpoint.parent / "report.json"
    result, _ = invoke("slim", checkpoint, "-p", 0.5, "--json", path)
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text(encoding="utf-8"))["cut"]["removed"] == 32


def test_help_teaches_with_an_example() -> None:
    """Help shows a command that can be copied, and names every option."""
    text = CliRunner().invoke(app, ["slim", "--help"], env={"COLUMNS": "200"}).output
    assert "compress slim resnet18.pt --percent 0.5 --out small.onnx" in text
    assert all(option in text for option in ("--keep", "--round-to", "--trust", "--json", "--no-verify"))


def test_the_version_is_shown() -> None:
    """`compress --version` says which one this is."""
    assert compress.__version__ in CliRunner().invoke(app, ["--version"]).output


@pytest.mark.parametrize(("text", "width"), [("auto", None), ("1", 1), ("16", 16)])
def test_rounding_is_read(text: str, width: int | None) -> None:
    """Automatic rounding is None, a number is itself."""
    assert checks.round_to(text) == width


def test_progress_is_shown_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short stage says nothing, a long one shows its name, and nothing is shown where nobody watches."""
    shown = threading.Event()
    monkeypatch.setattr("rich.progress.Progress.start", lambda _: shown.set())
    with TerminalProgress().stage("short") as advance:
        advance(1, 2)
    assert not shown.is_set()
    monkeypatch.setattr("compress.cli.progress.PATIENCE", 0.0)
    with TerminalProgress().stage("long", 3):
        assert shown.wait(timeout=30)
    assert isinstance(progress_for(quiet=True), Silent)
    assert isinstance(progress_for(quiet=False), Silent)  # a test's stderr is no terminal
