"""Writes a network as a file that deploys, reloads the file in its own runtime, and proves that it computes the same.

One target is one file here: a writer and a loader under a suffix. `export` is the only way to write.
"""

import sys
from types import ModuleType
from typing import Any

from compress.core.types import Exported
from compress.export.api import export, load
from compress.export.target import TARGETS, Target

__all__ = ["TARGETS", "Target", "export", "load"]


class _Callable(ModuleType):
    """This folder bears the name of the public function `compress.export`, and is called as it."""

    def __call__(self, *arguments: Any, **options: Any) -> Exported:
        """Do what `export` does."""
        return export(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
