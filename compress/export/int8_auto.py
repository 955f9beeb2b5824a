"""Which layers stay in float: those whose quantization moves the output most, as few as the accuracy allows.

Every layer is quantized by itself, and d_l = sum |int8_l - float|^2 / sum |float|^2 over the outputs on a few
calibration inputs says what that costs. In the order of falling d_l, the smallest number of layers whose staying in
float32 brings the score up to its floor is found by halving: log2(layers) scored files instead of one a layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from compress.core.errors import ExportError
from compress.export.answers import answers, distance, outputs
from compress.export.int8 import Quantizer
from compress.export.quiet import quiet

Score = Callable[[Path], float]
PROBE_INPUTS = 32


@dataclass(frozen=True, slots=True)
class Choice:
    """The layers that stay in float32, the score that the file reaches with them, and how many files were scored."""

    keep_float: tuple[str, ...]
    score: float
    scored: int


def keep_float(
    prepared: Quantizer,
    source: Path,
    folder: Path,
    probe: Tensor,
    score: Score,
    floor: float,
    *,
    rows: int | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Choice:
    """Return the fewest layers, in the order of what they cost, with which `score` of the int8 file reaches `floor`.

    `source` is the float file, `probe` some inputs, batch first, `rows` the only batch size that the file takes. Files
    that are tried lie in `folder`. Raises ExportError where not even every layer in float32 reaches the floor.
    """
    tried: dict[int, float] = {}
    file = folder / "tried.onnx"
    ranking: tuple[str, ...] = ()

    def reached(count: int) -> float:
        """Score the file with the `count` costliest layers in float."""
        if count not in tried:
            with quiet():
                prepared.write(file, keep_float=ranking[:count])
            tried[count] = score(file)
        return tried[count]

    if reached(0) >= floor:
        return Choice((), tried[0], 1)
    ranking = costliest(prepared, source, file, probe[:PROBE_INPUTS], rows, advance)
    low, high = 0, len(ranking)
    if not reached(high) >= floor:
        raise ExportError(
            f"int8 was not written: with all {high} layers in float32 the score is {tried[high]:.4f}, less than the "
            f"{floor:.4f} asked for",
            fix="allow a larger drop, or give more calibration inputs",
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= floor else (middle, high)
    return Choice(ranking[:high], tried[high], len(tried))


def costliest(
    prepared: Quantizer,
    source: Path,
    file: Path,
    probe: Tensor,
    rows: int | None,
    advance: Callable[[int, int], None],
) -> tuple[str, ...]:
    """Return all layers, the one first whose quantization alone moves the output most."""
    reference = outputs(answers(source, rows), probe)
    costs: dict[str, float] = {}
    for done, layer in enumerate(prepared.layers):
        with quiet():
            prepared.write(file, only=(layer,))
        costs[layer] = distance(outputs(answers(file, rows), probe), reference)
        advance(done + 1, len(prepared.layers))
    return tuple(sorted(costs, key=lambda layer: -costs[layer]))
