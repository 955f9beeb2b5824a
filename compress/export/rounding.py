"""Two programs that round differently: is a file wrong, or does the network amplify rounding errors?

Random or badly scaled weights make networks whose float32 result has no four correct digits. Then no file can agree to
1e-4, and the question is asked in float64:
    |file in float64 - network in float64| <= 1e-4 |network in float64|      the file is the same function, and
    |file - network in float64| <= 10 |network in float32 - network in float64|   its runtime rounds no worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from compress.export.parity import TOLERANCE, Question, relative_error
from compress.export.target import Target
from compress.surgery.silence import double_output

# How much worse than PyTorch in float32 another runtime in float32 may round, both measured from float64.
WORSE = 10.0


def only_rounding(target: Target, module: nn.Module, path: Path, questions: Sequence[Question]) -> str:
    """Say how the file was shown to be right up to rounding; empty where it is wrong, or where that cannot be shown.

    `module` is in eval mode. The file is computed in float64 on the first question only: that is slow.
    """
    if target.load_double is None:
        return ""
    loaded = target.load(path)
    own = runtime = 0.0
    first: list[Tensor] | None = None
    for question in questions:
        wide = tuple(x.double() if x.is_floating_point() else x for x in question.inputs)
        truth = double_output(module, wide)
        first = truth if first is None else first
        own = max(own, relative_error(truth, question.answer))
        runtime = max(runtime, relative_error(truth, loaded(question.inputs)))
    if first is None or not runtime <= WORSE * own:
        return ""
    try:
        doubled = relative_error(first, target.load_double(path)(questions[0].inputs))
    except Exception:  # noqa: BLE001 - not every operator can be computed so; then nothing is shown
        return ""
    if not doubled <= TOLERANCE:
        return ""
    return (
        f"this network amplifies rounding: in float32 PyTorch itself is off by {own:.1g} of its result in float64, "
        f"the file by {runtime:.1g}; computed in float64 they agree to {doubled:.1g}"
    )
