"""What may leave: words that the command line, the analysis and the budgets share."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """Over what the channels are ranked."""

    GLOBAL = "global"
    LAYER = "layer"
    ISOMORPHIC = "isomorphic"


class Attention(StrEnum):
    """What leaves in attention: whole heads, or the same position inside every head."""

    HEADS = "heads"
    DIMS = "dims"
