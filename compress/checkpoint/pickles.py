"""Read what torch.save and safetensors write, running no code from the file unless it is trusted."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from compress.core.errors import CheckpointError, first_line, kind_and_line

# Under these names a safetensors file holds what a saved cut has beside its weights.
OWN = "compress"
PROGRAM = "compress.program"

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
        if isinstance(error, ModuleNotFoundError | AttributeError | ImportError):
            raise CheckpointError(
                f"{path} holds an object whose class is not importable here: {first_line(error)}",
                fix="run where its source code is on PYTHONPATH, or save model.state_dict() instead",
            ) from error
        raise CheckpointError(
            f"{path} cannot be read: {kind_and_line(error)}", fix="save it again with torch.save"
        ) from error


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a safetensors file, or, where `write_safetensors` wrote it, what that was given.

    Raises CheckpointError where the file is damaged or the package is missing.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise CheckpointError(
            f"{path} needs the package safetensors, which is not installed", fix="pip install safetensors"
        ) from error
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            said = (file.metadata() or {}).get(OWN)
        if said is None:
            return tensors
        return {**json.loads(said), "program": tensors.pop(PROGRAM, None), "state_dict": tensors}
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file: {error}", fix="save or download it again"
        ) from error


def write_safetensors(path: Path, data: Mapping[str, Any]) -> None:
    """Write a saved cut as safetensors: its tensors under their own names, the rest as JSON in the file's metadata.

    Tied tensors are written once each. Raises TypeError where the architecture has options that JSON does not hold.
    """
    from safetensors.torch import save_file

    rest = {key: value for key, value in data.items() if key not in {"state_dict", "program"}}
    tensors = {name: tensor.clone() for name, tensor in data["state_dict"].items()}
    if data["program"] is not None:
        tensors[PROGRAM] = data["program"]
    save_file(tensors, path, metadata={"format": "pt", OWN: json.dumps(rest)})


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
