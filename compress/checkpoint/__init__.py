"""Any file -> Network: one file a format, and the architecture found from keys and shapes."""

from __future__ import annotations

from compress.checkpoint.architecture import build
from compress.checkpoint.read import load
from compress.checkpoint.saved import write_saved
from compress.checkpoint.source import call_factory

__all__ = ["build", "call_factory", "load", "write_saved"]
