"""The stages in order, one file a command; `slim.py` is the file to read first."""

from compress.pipeline.api import Result, inspect, load, slim
from compress.pipeline.opening import opened, rounding
from compress.pipeline.options import SlimOptions
from compress.pipeline.slim import run_slim

__all__ = ["Result", "SlimOptions", "inspect", "load", "opened", "rounding", "run_slim", "slim"]
