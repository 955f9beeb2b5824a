"""Find the weights, and what was noted beside them, in what torch.load or safetensors gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.core.errors import CheckpointError

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema", "model_ema", "state_dict_ema")
PREFIXES = ("module.", "_orig_mod.")
OUTER = ("model.", "net.", "backbone.", "encoder.")
# counters that averaging and wrapping classes keep beside the network's own tensors
COUNTERS = ("n_averaged",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a checkpoint says about its network, as plain data; None or empty where it says nothing."""

    arch: str | None = None
    arch_options: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: int | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of a checkpoint under the network's own names, floats as float32 on the CPU."""

    tensors: Mapping[str, Tensor]
    recorded: Recorded
    notes: tuple[str, ...]


def weights_in(data: object, path: Path) -> Weights:
    """Return the weights in `data`, the contents of `path`.

    Raises CheckpointError where it holds none, and where one of them is NaN.
    """
    if not isinstance(data, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(data).__name__}, not a state dict", fix="save model.state_dict() and give that file"
        )
    table, where = _innermost(data)
    tensors = {str(name): value for name, value in table.items() if isinstance(value, Tensor)}
    if not tensors or any(not isinstance(name, str) for name in table):
        keys = ", ".join(map(str, list(data)[:5])) or "nothing"
        raise CheckpointError(
            f"{path} holds no state dict (its keys: {keys})",
            fix=f"put the state dict at the top or under one of {', '.join(WRAPPERS)}",
        )
    notes = [f"weights taken from {where!r} in the file"] if where else []
    dropped = [name for name in table if name not in tensors]
    if dropped:
        notes.append(f"entries that are not tensors are left out: {', '.join(map(str, dropped[:3]))}")
    tensors = _unprefixed(tensors, PREFIXES)
    require_no_nan(tensors, path)
    wrong = sorted({str(t.dtype) for t in tensors.values() if t.is_floating_point()} - {"torch.float32"})
    if wrong:
        notes.append(f"weights converted from {', '.join(wrong)} to float32")
    return Weights({name: _plain(value) for name, value in tensors.items()}, recorded_in(data, path), tuple(notes))


def without_outer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip an attribute name that all keys share, as training frameworks add (`model.`, `net.` ...)."""
    return _unprefixed(dict(tensors), OUTER)


def require_no_nan(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise CheckpointError naming the first of `tensors` with a NaN in it, and how many have one."""
    bad = [name for name, value in tensors.items() if value.is_floating_point() and bool(torch.isnan(value).any())]
    if bad:
        count = int(torch.isnan(tensors[bad[0]]).sum())
        more = f" (and {len(bad) - 1} more tensors)" if len(bad) > 1 else ""
        raise CheckpointError(
            f"{path}: {bad[0]} has {count} NaN values of {tensors[bad[0]].numel()}{more}",
            fix="the training diverged: take an earlier checkpoint",
        )


def _innermost(data: Mapping[Any, Any]) -> tuple[Mapping[Any, Any], str]:
    """Return the dict that holds the tensors, and the keys that lead to it."""
    path: list[str] = []
    while not _has_tensors(data) or any(_has_tensors(data.get(w)) for w in WRAPPERS):
        inner = next((w for w in WRAPPERS if isinstance(data.get(w), Mapping) and data[w]), None)
        if inner is None:
            break
        path.append(inner)
        data = data[inner]
    return data, ".".join(path)


def _has_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(part, Tensor) for part in value.values())


def _unprefixed(tensors: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    kept = {name: value for name, value in tensors.items() if name not in COUNTERS}
    for prefix in prefixes:
        if kept and all(name.startswith(prefix) for name in kept):
            return _unprefixed({name.removeprefix(prefix): value for name, value in kept.items()}, prefixes)
    return tensors


def _plain(value: Tensor) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.float() if value.is_floating_point() else value


def recorded_in(data: Mapping[Any, Any], path: Path) -> Recorded:
    """Read "arch", "arch_options", "input_shape", "mean", "std", "resize" where they are plain data.

    Raises CheckpointError where one of them is there and is not what its name says.
    """
    try:
        arch = data.get("arch")
        shape = data.get("input_shape")
        resize = data.get("resize")
        return Recorded(
            arch=arch if isinstance(arch, str) else None,
            arch_options=dict(data.get("arch_options") or {}),
            input_shape=tuple(int(n) for n in shape) if shape is not None else None,
            mean=_numbers(data.get("mean")),
            std=_numbers(data.get("std")),
            resize=int(resize) if resize is not None else None,
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: what it records beside its weights cannot be read ({error})",
            fix='"arch_options" is a dict, "input_shape" a list of ints, "mean" and "std" are lists of numbers',
        ) from error


def _numbers(value: Any) -> tuple[float, ...]:
    if value is None or isinstance(value, Tensor):
        return ()
    return (float(value),) if isinstance(value, int | float) else tuple(float(x) for x in value)
