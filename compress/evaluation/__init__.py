"""Data sets, what a network reaches on them, and how far two networks agree."""

from __future__ import annotations

from compress.evaluation.calibration import calibration_batch
from compress.evaluation.data import Data, open_data
from compress.evaluation.metrics import agreement, evaluate

__all__ = ["Data", "agreement", "calibration_batch", "evaluate", "open_data"]
