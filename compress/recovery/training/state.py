"""The state of a training that can be taken up again: written whole or not at all, read without running code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compress.core.errors import CheckpointError, UsageError
from compress.core.files import written_whole
from compress.recovery.training.recipe import Recipe

FORMAT = "compress-training-1"


@dataclass(frozen=True, slots=True)
class Keep:
    """Where the state of a training goes, every how many steps, and whether one that lies there is taken up."""

    path: Path
    every: int = 500
    resume: bool = False


def fingerprint(recipe: Recipe, module: nn.Module, inputs: int, what: str) -> dict[str, Any]:
    """Return what must be equal for a state to be taken up: recipe, shapes, number of inputs, and what is learned."""
    shapes = [(name, list(tensor.shape)) for name, tensor in module.state_dict().items()]
    digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
    return {**{k: _plain(v) for k, v in asdict(recipe).items()}, "shapes": digest, "inputs": inputs, "learns": what}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value


def require_unfinished_is_wanted(keep: Keep) -> None:
    """Raise UsageError where an unfinished training lies at the place and nobody asked to go on with it."""
    if keep.path.is_file() and not keep.resume:
        raise UsageError(
            f"{keep.path} holds the state of a training that was not finished",
            fix="add --resume to go on with it, or delete the file to begin anew",
        )


def write_state(path: Path, fits: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Write `data`, plain values and tensors, for a training that `fits`. A kill at any moment leaves a whole file."""
    with written_whole(path) as temporary:
        torch.save({"format": FORMAT, "fits": dict(fits), **data}, temporary)


def read_state(path: Path, fits: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `write_state` wrote.

    Raises CheckpointError where it is no such file, UsageError where it belongs to another training.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        found = data["fits"] if data["format"] == FORMAT else None
    except Exception as error:
        raise CheckpointError(
            f"{path} is not the state of a training: {error}", fix="delete it to begin anew"
        ) from error
    if found is None:
        raise CheckpointError(
            f"{path} has the format {data['format']!r}, not {FORMAT!r}", fix="delete it to begin anew"
        )
    other = [name for name in fits if found.get(name) != fits[name]]
    if other:
        told = ", ".join(f"{name} was {found.get(name)}, is {fits[name]}" for name in other if name != "shapes")
        raise UsageError(
            f"{path} belongs to another training: {told or 'the network has other shapes'}",
            fix="give the options it was begun with, or delete it to begin anew",
        )
    return dict(data)
