"""Read what torch.export.save wrote: the graph and its weights, no source code needed."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from compress.checkpoint.inputs import BATCH, checked, example
from compress.checkpoint.statedict import require_no_nan
from compress.core.errors import CheckpointError, UsageError, kind_and_line
from compress.core.types import Network


def read_exported(path: Path, input_shape: tuple[int, ...] | None = None) -> Network:
    """Return the network in the exported program at `path`.

    The batch dimension is dynamic where the program was exported so. Raises CheckpointError where the file is
    damaged or takes something other than one float tensor, UsageError where `input_shape` does not fit it.
    """
    with path.open("rb") as file:
        return network_in(file, path, input_shape)


def network_in(file: IO[bytes], path: Path, input_shape: tuple[int, ...] | None = None) -> Network:
    """Return the network in the open .pt2 `file`, which is the file at `path` or a part of it; see `read_exported`."""
    program = _program(file, path)
    require_no_nan(program.state_dict, path)
    sizes = _input_sizes(program, path)
    dynamic = sizes[0] is None
    shape = _shape(sizes, _example_shape(program, len(sizes)), input_shape, path)
    notes = [f"input shape {','.join(map(str, shape))} (from the exported program)"]
    if not dynamic:
        notes.append(f"the program was exported for batch {sizes[0]} only, and so will be what is made of it")
    return Network(
        name=path.stem,
        module=graph_module(program),
        example=example(shape, batch=shape[0] if sizes[0] is not None else BATCH),
        kind="exported",
        dynamic_batch=dynamic,
        notes=tuple(notes),
    )


def graph_module(program: ExportedProgram) -> nn.Module:
    """Return the program as an nn.Module as it was exported: parameters keep their names, nothing is re-checked."""
    unguarded = "check_guards" in inspect.signature(program.module).parameters
    module: nn.Module = program.module(check_guards=False) if unguarded else program.module()
    module.training = False  # GraphModules of exported programs refuse .eval(); the mode is fixed in the graph
    return module


def _program(file: IO[bytes], path: Path) -> ExportedProgram:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(file)
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a readable exported program: {kind_and_line(error)[:200]}",
            fix="save it again with torch.export.save, by the torch version that reads it here",
        ) from error


def _input_sizes(program: ExportedProgram, path: Path) -> list[int | None]:
    """Return the sizes of the program's one input; None where a dimension is dynamic."""
    names = [s.arg.name for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    values: list[Any] = [node.meta.get("val") for node in nodes]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or not values[0].is_floating_point():
        raise CheckpointError(
            f"{path} takes {len(values)} inputs ({', '.join(map(str, names))}); one float tensor is supported",
            fix="export a network that takes one float tensor",
        )
    sizes: list[Any] = list(values[0].shape)
    return [size if isinstance(size, int) else None for size in sizes]


def _example_shape(program: ExportedProgram, rank: int) -> tuple[int, ...] | None:
    inputs: Any = program.example_inputs
    args = [value for value in (inputs[0] if inputs else ()) if isinstance(value, torch.Tensor)]
    return tuple(args[0].shape) if args and args[0].ndim == rank else None


def _shape(
    sizes: Sequence[int | None], seen: tuple[int, ...] | None, given: tuple[int, ...] | None, path: Path
) -> tuple[int, ...]:
    if given is not None:
        given = checked(given)
        fits = len(given) == len(sizes) and all(s in (None, g) for s, g in zip(sizes[1:], given[1:], strict=True))
        if not fits:
            wanted = ",".join("any" if size is None else str(size) for size in sizes)
            raise UsageError(
                f"{path} takes inputs of shape {wanted}, not {','.join(map(str, given))}",
                fix="leave --input-shape out, or give one that fits",
            )
        return (sizes[0] or given[0], *given[1:])
    if seen is None and None in sizes[1:]:
        raise CheckpointError(
            f"{path}: the program takes inputs of any size and holds no example of one",
            fix="add --input-shape, as in --input-shape 1,3,224,224",
        )
    return tuple(size or (seen[d] if seen else 1) for d, size in enumerate(sizes))
