"""The stages in order, one file a command; `slim.py` is the file to read first."""

from compress.pipeline.options import SlimOptions
from compress.pipeline.slim import run_slim

__all__ = ["SlimOptions", "run_slim"]
