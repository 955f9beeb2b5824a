"""What others may rely on: public names, what they cost to import, the version, the exit codes."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import compress
from compress.core import errors
from compress.pipeline.options import SlimOptions

HEAVY = {"torch", "torchvision", "onnx", "onnxruntime", "scipy", "sklearn", "matplotlib", "numpy"}


def _imported_by(program: str) -> set[str]:
    """Run `program` in a fresh interpreter and return the heavy modules that it imported."""
    report = f"import sys\n{program}\nprint('imported', *({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", report], check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_public_names_are_these() -> None:
    """Names change only together with this list and the changelog."""
    assert compress.__all__ == ["CompressError", "Plan", "export", "inspect", "load", "slim", "verify"]
    assert set(compress.__all__) <= set(dir(compress))


@pytest.mark.parametrize("name", compress.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """A lazy name leads to something that is described."""
    assert getattr(compress, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy lookup fails as a module does."""
    with pytest.raises(AttributeError, match="no attribute 'slimmer'"):
        _ = compress.slimmer


@pytest.mark.parametrize("module", ["compress", "compress.cli", "compress.report.types", "compress.report.terminal"])
def test_importing_costs_nothing(module: str) -> None:
    """What the command line needs before it works is light."""
    assert _imported_by(f"import {module}") == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["slim", "--help"],
        ["inspect", "--help"],
        ["sweep", "--help"],
        ["bench", "--help"],
        ["flops", "--help"],
        ["slim", "none.pt"],
        ["slim", "x", "-p", "2"],
    ],
)
def test_help_and_simple_mistakes_import_nothing_heavy(arguments: list[str]) -> None:
    """Whoever asks for help, or mistypes, does not wait for torch."""
    invoke = f"from typer.testing import CliRunner; from compress.cli import app; CliRunner().invoke(app, {arguments})"
    assert _imported_by(invoke) == set()


def test_the_version_is_said_once() -> None:
    """The package and its metadata agree."""
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == compress.__version__


def test_every_error_is_the_users_to_fix() -> None:
    """All errors derive from one class, end with exit code 2, and carry the fix on its own line."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 1
    for kind in kinds:
        error = kind("what", fix="how")
        assert isinstance(error, compress.CompressError)
        assert (error.exit_code, str(error)) == (2, "what\n  fix: how")


def test_python_takes_what_the_command_line_takes() -> None:
    """Every option of `compress slim` about the network is a keyword of `compress.slim`; the others read and write."""
    files = {"arch", "input_shape", "num_classes", "trust", "download", "mean", "std", "resize", "plan_in", "plan_out"}
    files |= {"checkpoint", "save", "out", "json", "bench", "threads", "device", "resume", "checkpoint_every"}
    files |= {"opset", "dynamic_size", "optimize", "fp16", "int8", "int8_auto", "int8_method", "int8_max_drop"}
    options = {field.name for field in dataclasses.fields(SlimOptions)}
    keywords = set(inspect.signature(compress.slim).parameters) - {"model", "example_input"}
    assert keywords - {"plan", "labels"} == options - files
