"""The code's own rules that no linter holds: sizes, who may print, and that the public speaks in sentences."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "compress"
SOURCES = sorted(PACKAGE.rglob("*.py"))
FILE_LINES = 350
FUNCTION_LINES = 60


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_files_and_functions_stay_small(path: Path) -> None:
    """A file holds one idea within 350 lines, a function one step within 60."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= FILE_LINES, f"{_name(path)} has {lines} lines: split it where its second idea begins"
    long = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in _functions(path)}
    assert not {name: size for name, size in long.items() if size > FUNCTION_LINES}


@pytest.mark.parametrize("path", [s for s in SOURCES if not _name(s).startswith("cli/")], ids=_name)
def test_only_the_command_line_prints(path: Path) -> None:
    """Everything else hands its results on as data."""
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_what_is_public_is_described(path: Path) -> None:
    """Every file, public class and public function has a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert not [f"{node.name}, line {node.lineno}" for node in _public(tree) if not ast.get_docstring(node)]


def _public(tree: ast.Module) -> list[ast.FunctionDef | ast.ClassDef]:
    found: list[ast.FunctionDef | ast.ClassDef] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found.append(node)
            if isinstance(node, ast.ClassDef):
                found += [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_no_architecture_is_named_in_a_condition(path: Path) -> None:
    """Nothing in the package decides by a model's name: what works, works for every architecture."""
    families = ("resnet", "vgg", "densenet", "mobilenet", "efficientnet", "convnext", "swin", "inception", "shufflenet")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            words = [
                c.value.lower() for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)
            ]
            assert not [w for w in words if any(family in w for family in families)], f"line {node.lineno}"


def test_the_core_is_light() -> None:
    """The core and the package itself can be imported without importing torch."""
    modules = [f"compress.core.{path.stem}" for path in (PACKAGE / "core").glob("*.py") if path.stem != "__init__"]
    program = f"import sys, compress, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
