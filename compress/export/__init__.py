"""Writes a network as a file that deploys, reloads the file in its own runtime, and proves that it computes the same.

One target is one file here: a writer and a loader under a suffix. `export` is the only way to write.
"""

from compress.export.api import export, load
from compress.export.target import TARGETS, Target

__all__ = ["TARGETS", "Target", "export", "load"]
