"""Run a factory in a Python file that the user named: `path/to/file.py:factory`."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from compress.core.errors import CheckpointError, CompressError


def is_file_spec(text: str) -> bool:
    """Tell whether `text` names a factory in a Python file.

    >>> is_file_spec("models/vgg.py:vgg19"), is_file_spec("timm:vgg19")
    (True, False)
    """
    return text.rpartition(":")[0].endswith(".py") or text.endswith(".py")


def call_factory(
    spec: str, options: Mapping[str, Any] | None = None, *, error: type[CompressError] = CheckpointError
) -> Any:
    """Execute the file in `spec` ("file.py:factory") and return what `factory(**options)` returns.

    Raises `error` where the file or the factory does not exist, or where either of them fails.
    """
    file, _, name = spec.rpartition(":")
    if not file.endswith(".py") or not name:
        raise error(f"{spec} names a file but no function in it", fix="write path/to/file.py:function")
    module = _executed(Path(file), error)
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        raise error(f"{file} has no function {name!r}", fix=f"one of its own: {', '.join(near or known[:5]) or 'none'}")
    options = dict(options or {})
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as problem:
        raise error(
            f"{spec} cannot be called with {options}: {problem}", fix="give the options that the function takes"
        ) from problem
    try:
        return factory(**options)
    except Exception as problem:
        raise error(
            f"{spec} failed: {type(problem).__name__}: {problem}", fix="correct the function or its options"
        ) from problem


def _executed(path: Path, error: type[CompressError]) -> ModuleType:
    if not path.is_file():
        raise error(f"{path} does not exist", fix="check the path before the colon")
    name = f"_compress_user_{path.stem}_{abs(hash(path.resolve())):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise error(f"{path} is not a Python file", fix="name a .py file")
    module = importlib.util.module_from_spec(spec)
    # dataclasses and pickle look a class's module up by name while the file runs
    sys.modules[name] = module
    # as for a script, files beside the named one can be imported by it
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[name]
        raise error(
            f"{path} cannot be executed: {type(problem).__name__}: {problem}", fix="correct the file"
        ) from problem
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module
