"""What `compress inspect` looks at: the analysis of the network in a file, and what the network does on inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.checkpoint import load as read_checkpoint
from compress.core.choosing import Attention
from compress.evaluation.calibration import calibration_set
from compress.evaluation.judge import DataOptions, open_calibration
from compress.evaluation.stages import CALIBRATION_INPUTS, evidence_of
from compress.graph.analyse import Analysis, analyse
from compress.importance import Evidence
from compress.pipeline.opening import opened


def looked_into(
    checkpoint: str | Path,
    *,
    attention: Attention = Attention.HEADS,
    calibration: str | None = None,
    data: DataOptions | None = None,
    **options: Any,
) -> tuple[Analysis, Evidence | None]:
    """Analyse the network in a file; with `calibration`, also return what criteria that need inputs may look at.

    `calibration` names images as `--calibration` does, prepared as `data` says; `options` are those of reading the
    file. Raises what reading a checkpoint and opening a data set raise.
    """
    network, _ = opened(read_checkpoint(checkpoint, **options))
    analysis = analyse(network.module, network.example, attention=attention)
    learned = open_calibration(network, calibration, data or DataOptions(), None)
    if learned is None:
        return analysis, None
    inputs, labels = calibration_set(network.example[0].shape, learned, CALIBRATION_INPUTS)
    fixed = None if network.dynamic_batch else len(network.example[0])
    return analysis, evidence_of(network.module, inputs, labels, fixed=fixed)
