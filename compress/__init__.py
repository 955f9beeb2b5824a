"""Makes a trained PyTorch network smaller and faster by physically removing channels.

The names below are imported when they are first used: `import compress` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.core.errors import CompressError
    from compress.core.types import Plan
    from compress.pipeline.api import inspect, load, slim

__version__ = "0.1.0"
__all__ = ["CompressError", "Plan", "inspect", "load", "slim"]

_HOMES = {
    "CompressError": "compress.core.errors",
    "Plan": "compress.core.types",
    "inspect": "compress.pipeline.api",
    "load": "compress.pipeline.api",
    "slim": "compress.pipeline.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted([*globals(), *__all__])
