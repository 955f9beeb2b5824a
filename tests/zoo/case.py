"""A tricky network and the answer that its author worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from compress.core.choosing import Attention

Answer = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """`together` lists sets of slices that leave together, in the notation of `answer`; each is checked to be complete.

    `stay` maps one slice in the same notation to words of the reason why it must stay ("" where none is asked for).
    `follows` is False where the module's own code cannot take other widths and only the rewritten graph can.
    """

    module: nn.Module
    example: tuple[Any, ...]
    together: tuple[str, ...] = ()
    stay: dict[str, str] = field(default_factory=dict)
    attention: Attention = Attention.HEADS
    follows: bool = True
    exports: bool = True


CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    """Enter a function that builds a case under its name."""
    CASES[build.__name__] = build
    return build


def answer(module: nn.Module, text: str) -> Answer:
    """Read "conv>3 bn>3 next<3,7-9 table:1=2" as {"conv.weight:0": (3,), ...}.

    `m>i` is output i of layer m: its weight, bias and running statistics. `m<i` is what its weight reads. `p:d=i` is
    index i of dimension d of the parameter p.
    """
    found: Answer = {}
    for word in text.split():
        if (direct := re.fullmatch(r"(.+):(\d+)=(.+)", word)) is not None:
            found[f"{direct[1]}:{direct[2]}"] = _numbers(direct[3])
            continue
        path, arrow, numbers = re.split(r"([<>])", word)
        layer = module.get_submodule(path)
        swapped = bool(getattr(layer, "transposed", False))
        tensors = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
        for name, tensor in tensors.items():
            assert isinstance(tensor, Tensor)
            if arrow == ">" and tensor.dim() > 0:
                found[f"{path}.{name}:{int(swapped and name == 'weight')}"] = _numbers(numbers)
            elif arrow == "<" and name == "weight":
                found[f"{path}.{name}:{int(not swapped)}"] = _numbers(numbers)
    return found


def _numbers(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(sorted(found))
