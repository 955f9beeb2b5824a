"""Our own file: the weights of a cut network, the plan by which it was cut, and how to build what it was cut from.

Plain data and tensors only, so that reading it runs no code.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.checkpoint.architecture import Home, build, parse
from compress.checkpoint.exported import network_in
from compress.checkpoint.inputs import checked, example
from compress.checkpoint.pickles import write_safetensors
from compress.checkpoint.statedict import require_no_nan
from compress.core.errors import CheckpointError
from compress.core.files import written_whole
from compress.core.types import Network, Plan, Preprocessing

FORMAT = "compress-1"


def write_saved(
    path: Path,
    *,
    state: Mapping[str, Tensor],
    plan: Plan,
    arch: str | None,
    arch_options: Mapping[str, Any] | None = None,
    input_shape: tuple[int, ...],
    preprocessing: Preprocessing | None = None,
    program: bytes | None = None,
    as_graph: bool = False,
) -> None:
    """Write a cut network to `path`, whole or not at all: as safetensors where its suffix says so.

    `state` is the cut network's state dict, `arch` with `arch_options` the text that builds the uncut one; networks
    that carry their own graph give `program`, the bytes of the uncut one's .pt2, instead. `input_shape` has the batch
    first; `as_graph` tells that the cut network is a rewritten graph, not the architecture's own class.
    Raises UsageError where `path` cannot be written, ValueError where both or neither of `arch` and `program`
    are given.
    """
    if (arch is None) == (program is None):
        raise ValueError("a saved file needs the architecture's name or the uncut program, and not both")
    data = {
        "format": FORMAT,
        "plan": plan.to_json(),
        "state_dict": {name: value.detach().cpu().contiguous() for name, value in state.items()},
        "arch": arch,
        "arch_options": dict(arch_options or {}),
        "input_shape": list(input_shape),
        "preprocessing": asdict(preprocessing) if preprocessing else None,
        "program": torch.frombuffer(bytearray(program), dtype=torch.uint8) if program else None,
        "as_graph": as_graph,
    }
    with written_whole(path) as temporary:
        if path.suffix == ".safetensors":
            write_safetensors(temporary, data)
        else:
            torch.save(data, temporary)


def is_saved(data: object) -> bool:
    """Tell whether the contents of a file are those of `write_saved`."""
    return isinstance(data, Mapping) and str(data.get("format", "")).startswith("compress-")


def read_saved(
    data: Mapping[str, Any],
    path: Path,
    *,
    arch: str | None = None,
    arch_options: Mapping[str, Any] | None = None,
    input_shape: tuple[int, ...] | None = None,
    trust: bool = False,
) -> Network:
    """Return the *uncut* network of a saved file, with the plan and the weights of the cut one beside it.

    Raises CheckpointError where a part is missing or damaged, or where the architecture is a file that neither
    `arch` names nor `trust` allows to run; PlanError where the plan is not one.
    """
    if data["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has the format {data['format']!r}; this version reads {FORMAT!r}", fix="update compress"
        )
    lacking = [key for key in ("plan", "state_dict", "input_shape") if data.get(key) is None]
    if lacking:
        raise CheckpointError(f"{path} is a damaged saved file: it lacks {', '.join(lacking)}", fix="save it again")
    require_no_nan(data["state_dict"], path)
    named = arch or data.get("arch")
    options = {**(data.get("arch_options") or {}), **(arch_options or {})}
    shape = checked(input_shape or tuple(data["input_shape"]))
    if named is not None:
        refuse_unnamed_file(named, path, allowed=trust or arch is not None)
        uncut = Network(
            name=path.stem,
            module=build(named, options),
            example=example(shape),
            kind="saved",
            arch=str(parse(named)),
            arch_options=options,
        )
    else:
        uncut = _program_in(data, path, shape)
    return replace(
        uncut,
        kind="saved",
        preprocessing=_preprocessing(data.get("preprocessing"), path),
        plan=Plan.from_json(data["plan"]),
        cut_state=dict(data["state_dict"]),
        as_graph=bool(data.get("as_graph")),
        notes=(*uncut.notes, f"input shape {','.join(map(str, shape))} (from the saved file)"),
    )


def _program_in(data: Mapping[str, Any], path: Path, shape: tuple[int, ...]) -> Network:
    program = data.get("program")
    if program is None:
        raise CheckpointError(
            f"{path} names no architecture and holds no program", fix="add --arch, with what it was cut from"
        )
    return replace(network_in(io.BytesIO(program.numpy().tobytes()), path, shape), notes=())


def refuse_unnamed_file(named: str, path: Path, *, allowed: bool) -> None:
    """Raise CheckpointError where `named`, recorded in the file at `path`, is code that may not be run."""
    if parse(named).home is Home.FILE and not allowed:
        raise CheckpointError(
            f"{path} records that its architecture is the code in {named}, which is not run unless you say so",
            fix=f"if you know that code, add --arch {named}",
        )


def _preprocessing(data: Any, path: Path) -> Preprocessing | None:
    if data is None:
        return None
    try:
        return Preprocessing(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: its preprocessing cannot be read ({error})", fix="save it again") from error
