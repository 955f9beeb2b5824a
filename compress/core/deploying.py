"""How a network is written for its runtime: words that the command line, the exporters and the reports share."""

from __future__ import annotations

from enum import StrEnum


class Precision(StrEnum):
    """What a deployed file computes in; its inputs and outputs are float32 in all of them."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


class Int8Method(StrEnum):
    """How the range of a tensor is taken from what it was during calibration."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"
