"""Scores -> which channels leave, one file a kind of budget; each enters its function into `choice.choose`."""

from compress.budget import amounts, explicit, latency, percent
from compress.budget.blocks import Limits
from compress.budget.choice import Choice, Problem, choose

__all__ = ["Choice", "Limits", "Problem", "amounts", "choose", "explicit", "latency", "percent"]
