"""One submodule of a larger network: what it is called with, and the network with another module in its place."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import torch
from torch import nn

from compress.core.errors import TraceError, UsageError, first_line
from compress.graph.modules import fresh, quiet_module, require_python, set_mode, walk
from compress.surgery.module import twin


def find(module: nn.Module, path: str) -> nn.Module:
    """Return the submodule at `path`; UsageError names near ones where there is none."""
    names: dict[str, nn.Module] = dict(module.named_modules())
    if path in names and path:
        return names[path]
    near = difflib.get_close_matches(path, names, n=3, cutoff=0.3) or [n for n, _ in module.named_children()][:5]
    raise UsageError(f"the network has no submodule {path!r}", fix=f"name one of its own, e.g. {', '.join(near)}")


def inputs_of(module: nn.Module, example: tuple[Any, ...], path: str) -> tuple[Any, ...]:
    """Return the positional inputs that the submodule at `path` is first called with when `module` runs on `example`.

    Raises TraceError where the network does not run that far, or the submodule is not called.
    """
    inner = find(module, path)
    require_python(walk(inner))
    seen: list[tuple[Any, ...]] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.append(inspect.signature(inner.forward).bind(*args, **kwargs).args if kwargs else args)

    handle = inner.register_forward_pre_hook(note, with_kwargs=True)
    failure = "it is never called"
    try:
        with quiet_module(module), torch.no_grad():
            set_mode(module, train=False)
            module(*fresh(example))
    except Exception as error:  # noqa: BLE001 - what the rest of the network does after it is not asked for
        failure = f"the network fails before it is called: {first_line(error)}"
    finally:
        handle.remove()
    if not seen:
        raise TraceError(f"cannot find the inputs of submodule {path!r}: {failure}", fix="check --input-shape")
    return seen[0]


def replaced(module: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Copy `module` with `new` where the submodule at `path` was; wherever the network shares it, `new` is shared."""
    copy: nn.Module = twin(module, {id(find(module, path)): new})
    return copy
