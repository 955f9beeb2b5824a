"""Read what torch.save and safetensors write, running no code from the file unless it is trusted."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import torch

from compress.core.errors import CheckpointError

_CUT_SHORT = (
    "central directory",
    "unexpected EOF",
    "Ran out of input",
    "truncated",
    "unexpected pos",
    "file in archive",
)


def read_tensors(path: Path) -> Any:
    """Return the plain data and tensors that torch.save wrote to `path`, on the CPU.

    Raises CheckpointError where the file is damaged, or holds objects that only running code can rebuild.
    """
    try:
        # training scripts keep their command line beside the weights; a Namespace is only a dict with dots
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _explained(path, error) from error


def read_trusted(path: Path) -> Any:
    """Return whatever torch.save wrote to `path`, running the code that it asks for; only for trusted files."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        message = str(error).partition("\n")[0]
        if isinstance(error, ModuleNotFoundError | AttributeError | ImportError):
            raise CheckpointError(
                f"{path} holds an object whose class is not importable here: {message}",
                fix="run where its source code is on PYTHONPATH, or save model.state_dict() instead",
            ) from error
        raise CheckpointError(
            f"{path} cannot be read: {type(error).__name__}: {message}", fix="save it again with torch.save"
        ) from error


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a safetensors file; CheckpointError where it is damaged or the package is missing."""
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(
            f"{path} needs the package safetensors, which is not installed", fix="pip install safetensors"
        ) from error
    try:
        return dict(load_file(path, device="cpu"))
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {error}", fix="save or download it again"
        ) from error


def _explained(path: Path, error: Exception) -> CheckpointError:
    text = str(error)
    needed = re.search(
        r"(?:Unsupported global: GLOBAL|Unsupported class|Trying to load unsupported GLOBAL) ([\w.]+)", text
    )
    if needed:
        return CheckpointError(
            f"{path} is a pickled object (it needs {needed[1]}), and unpickling runs whatever code the file asks for; "
            "it was not read",
            fix="save model.state_dict() instead; or, only if you know who made the file, add --trust",
        )
    if isinstance(error, EOFError) or any(words in text for words in _CUT_SHORT):
        return CheckpointError(f"{path} is cut short or damaged", fix="save or download it again")
    first = text.partition("\n")[0].removeprefix("Weights only load failed. ")
    return CheckpointError(
        f"{path} was not written by torch.save: {type(error).__name__}: {first[:200]}",
        fix="save the weights with torch.save(model.state_dict(), path)",
    )
