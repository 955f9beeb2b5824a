"""Makes a trained PyTorch network smaller and faster by physically removing channels.

The names below are imported when they are first used: `import compress` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress.core.errors import CompressError
    from compress.core.types import Plan
    from compress.export.api import export
    from compress.pipeline.api import inspect, load, slim
    from compress.pipeline.verify import verify

__version__ = "0.1.0"
__all__ = ["CompressError", "Plan", "export", "inspect", "load", "slim", "verify"]

_HOMES = {
    "CompressError": "compress.core.errors",
    "Plan": "compress.core.types",
    "export": "compress.export",
    "inspect": "compress.pipeline.api",
    "load": "compress.pipeline.api",
    "slim": "compress.pipeline.api",
    "verify": "compress.pipeline.verify",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module 'compress' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    # A folder with the name of its function is called as it, so that both are one.
    return home if _HOMES[name] == f"{__name__}.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted([*globals(), *__all__])
