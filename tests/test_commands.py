"""The program lists its commands without importing them, and imports the one that is asked for."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.cli.app import COMMANDS

WIDE = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
LATER = {f"compress.cli.{name}" for name in [*COMMANDS, "options"]}
LATER |= {"pydantic", "rich", "compress.core.types", "compress.core.budgets"}
FILES = Path(__file__).parent.parent / "compress" / "cli"


def _imported(*arguments: str) -> tuple[int, set[str]]:
    """Run the program in a fresh interpreter; return its exit code, and which commands and libraries it imported."""
    program = (
        "import json, sys; from typer.testing import CliRunner; from compress.cli import app\n"
        f"code = CliRunner().invoke(app, {arguments!r}).exit_code\n"
        "print(json.dumps([code, list(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    code, modules = json.loads(done.stdout)
    return code, {name.removeprefix("compress.cli.") for name in LATER & set(modules)}


def test_the_table_names_the_commands_that_there_are() -> None:
    """A file of the command line that has help is a command, and every command is such a file."""
    files = {file.stem for file in FILES.glob("*.py") if "\nHELP = " in file.read_text(encoding="utf-8")}
    assert files - {"app"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_first_what_the_list_says_of_it(name: str) -> None:
    """One line is both: it stands in the list, and opens the command's own help, with examples below it."""
    everything = " ".join(CliRunner().invoke(app, ["--help"], env=WIDE).output.split())
    one = CliRunner().invoke(app, [name, "--help"], env=WIDE)
    text = " ".join(one.output.split())
    assert COMMANDS[name] in everything
    assert one.exit_code == 0
    assert text.index(f"Usage: compress {name} ") < text.index(COMMANDS[name])
    assert text.index(COMMANDS[name]) < text.index(f"compress {name} ", text.index("Examples"))


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_to_copy_are_whole_lines(name: str) -> None:
    """However narrow the terminal is, an example is one line; and it says no markup."""
    text = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "60"}).output
    home = importlib.import_module(f"compress.cli.{name}")
    examples = [line for line in home.HELP.splitlines() if line.startswith(("compress ", "torchrun "))]
    assert examples
    assert {f"    {line}" for line in examples} <= set(text.splitlines())


def test_options_stand_under_what_they_are_about() -> None:
    """Each under its panel, in the order in which they are declared, with what asks for help last."""
    text = CliRunner().invoke(app, ["slim", "--help"], env=WIDE).output
    found = ["Arguments:", "What to cut:", "--percent", "How good it must be:", "--max-drop", "Output:", "Other:"]
    places = [text.index(word, text.index("Arguments:")) for word in found]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("arguments", "code", "imported"),
    [
        (["--help"], 0, set()),
        (["--version"], 0, set()),
        (["slmi"], 2, set()),
        (["flops", "--help"], 0, {"flops", "options"}),
        (["slim", "--help"], 0, {"slim", "options"}),
    ],
)
def test_only_what_is_asked_for_is_imported(arguments: list[str], code: int, imported: set[str]) -> None:
    """Help waits for no other command, no record that only a run fills, and not for what checks values."""
    assert _imported(*arguments) == (code, imported)


def test_a_mistyped_command_is_suggested() -> None:
    """The suggestion comes from the list, and the exit code is that of a mistake."""
    result = CliRunner().invoke(app, ["slmi"], env=WIDE)
    assert result.exit_code == 2
    assert "No such command 'slmi'. Did you mean 'slim'?" in result.output


def test_int8_auto_may_be_two_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--int8 auto` is `--int8-auto`, and `--int8` before anything else stays a flag."""
    from compress.cli import slim

    seen: list[dict[str, object]] = []
    monkeypatch.setattr(slim, "_run", lambda fields, *, quiet: seen.append(fields))
    net = tmp_path / "net.pt"
    net.write_bytes(b"a network")
    images = tmp_path / "seen.npz"
    images.write_bytes(b"images")
    rest = ["--percent", "0.5", "--calibration", str(images), "--out", str(tmp_path / "small.onnx")]
    for words in (["--int8", "auto"], ["--int8"]):
        done = CliRunner().invoke(app, ["slim", str(net), *words, *rest])
        assert done.exit_code == 0, done.output
    assert [(fields["int8"], fields["int8_auto"]) for fields in seen] == [(True, True), (True, False)]
