"""What a target is, and the table of them by suffix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from compress.core.deploying import Precision
from compress.core.registry import Registry

# Under this name archives keep what they say about themselves, as JSON.
ABOUT = "compress.json"

# A reloaded file: takes the network's inputs, returns its output tensors, flattened, on the CPU.
Loaded = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file to write: `module` in eval mode, its positional inputs, where, and how.

    `batched` says for each input whether its first dimension is the batch that must stay free; all False gives a
    file for the example's own sizes; `sized` says the same of height and width. `agrees` tells whether what a `Loaded`
    returns is the network's result: a writer that tries an optional transformation asks it before keeping the outcome.
    `optimize` asks TorchScript to prepare the file for inference on this kind of machine; `about` is what it shall say
    about itself.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    path: Path
    batched: tuple[bool, ...]
    opset: int | None
    agrees: Callable[[Loaded], bool]
    sized: tuple[bool, ...]
    precision: Precision = Precision.FLOAT32
    optimize: bool = False
    about: Mapping[str, str] = field(default_factory=dict)


class Write(Protocol):
    """Writes `job.path` and returns notes for the user; raises whatever its exporter raises."""

    def __call__(self, job: Job) -> tuple[str, ...]:
        """Write the file."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A file format: its name in reports, how it is written and how its own runtime loads it.

    `load_double` gives what the file computes when its float32 numbers are taken for float64 ones, where that can be
    had.
    """

    name: str
    write: Write
    load: Callable[[Path], Loaded]
    load_double: Callable[[Path], Loaded] | None = None


TARGETS: Registry[Target] = Registry("export format")
