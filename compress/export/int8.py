"""int8 for ONNX: static quantization by onnxruntime's own quantizer, calibrated on real inputs.

Activations are unsigned, weights signed with one scale a channel: the combination that onnxruntime turns into integer
convolutions on x86 and ARM alike. Each quantized tensor stands between QuantizeLinear and DequantizeLinear ("QDQ").
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    create_calibrator,
    quant_pre_process,
    quantize_static,
)
from onnxruntime.quantization.calibrate import save_tensors_data
from torch import Tensor

from compress.core.deploying import Int8Method, Precision
from compress.core.errors import ExportError, UsageError, first_line
from compress.core.files import written_together
from compress.core.types import Exported
from compress.export.answers import ROWS, answers, distance, outputs, same_class
from compress.export.onnx_save import about_of, fits_in_one, save
from compress.export.parity import relative_error
from compress.export.quiet import quiet

# Operators whose quantization can be switched off by itself; what stands between them follows.
LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
# A file that answers differently more often than this is not left behind.
MIN_AGREEMENT = 0.9
# Where there are no classes: the largest mean squared error over the mean square of the outputs.
MAX_DISTANCE = 0.05
METHODS = {
    Int8Method.MINMAX: CalibrationMethod.MinMax,
    Int8Method.ENTROPY: CalibrationMethod.Entropy,
    Int8Method.PERCENTILE: CalibrationMethod.Percentile,
}


@dataclass(frozen=True, slots=True)
class Quantizer:
    """A float ONNX file whose ranges have been measured; `write` makes int8 files of it, each from the same ranges.

    `layers` are the names of the nodes that can be kept in float.
    """

    graph: Path
    ranges: Path
    layers: tuple[str, ...]
    method: Int8Method

    def write(self, path: Path, *, keep_float: Sequence[str] = (), only: Sequence[str] = ()) -> None:
        """Write an int8 file to `path`, in which the nodes `keep_float` compute in float32, or all but `only` do."""
        quantize_static(
            self.graph,
            path,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            calibrate_method=METHODS[self.method],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=list(only),
            nodes_to_exclude=list(keep_float),
            calibration_cache_path=self.ranges,
        )


@contextmanager
def quantizer(source: Path, calibration: Tensor, method: Int8Method | str, rows: int | None) -> Iterator[Quantizer]:
    """Prepare the float ONNX file `source`, of one input: infer its shapes, and measure every tensor on `calibration`.

    `calibration` is a float32 tensor, batch first; `rows` the only batch size that the file takes, None for any. What
    is prepared lives as long as the context. Raises ExportError where onnxruntime cannot prepare the file.
    """
    with tempfile.TemporaryDirectory(prefix="compress-int8-") as folder, quiet():
        graph, ranges = Path(folder) / "prepared.onnx", Path(folder) / "ranges.json"
        try:
            quant_pre_process(source, graph, skip_symbolic_shape=True)
            model = onnx.load(graph)
            measured = _measured(graph, Path(folder), calibration, METHODS[Int8Method(method)], rows or ROWS)
            save_tensors_data(measured, ranges)
        except Exception as error:
            raise ExportError(f"onnxruntime cannot calibrate this network: {first_line(error)}") from error
        layers = tuple(node.name for node in model.graph.node if node.op_type in LAYERS)
        yield Quantizer(graph, ranges, layers, Int8Method(method))


def _measured(graph: Path, folder: Path, calibration: Tensor, method: Any, rows: int) -> Any:
    """Return the range of every tensor, from batches of `rows` one after the other: only one is in memory."""
    calibrator = create_calibrator(
        graph, None, augmented_model_path=str(folder / "watched.onnx"), calibrate_method=method
    )
    name = onnx.load(graph, load_external_data=False).graph.input[0].name
    whole = calibration[: max(len(calibration) // rows, 1) * rows]
    if len(whole) < rows:
        whole = calibration[:1].expand(rows, *calibration.shape[1:])
    for part in whole.split(rows):
        calibrator.collect_data(_Batch(name, part))
    return calibrator.compute_data()


class _Batch(CalibrationDataReader):
    """One batch, as onnxruntime's calibrators ask for it."""

    def __init__(self, name: str, batch: Tensor) -> None:
        self._left = [{name: batch.numpy()}]

    def get_next(self) -> dict[str, Any] | None:
        """Return the batch, then None."""
        return self._left.pop() if self._left else None


def quantize(
    source: Path | str,
    path: Path | str,
    calibration: Tensor,
    *,
    method: Int8Method | str = Int8Method.MINMAX,
    keep_float: Sequence[str] = (),
    min_agreement: float = MIN_AGREEMENT,
) -> Exported:
    """Write the float ONNX file `source`, of one input, as int8 to `path`, and compare both on `calibration`.

    `calibration` is a float32 tensor of inputs as the network reads them, batch first; a few hundred are enough.
    `keep_float` names nodes that stay in float32. Metadata is taken over.
    Raises ExportError where onnxruntime cannot quantize the file, or the int8 file chooses the float one's class on
    less than `min_agreement` of the inputs (without classes: is off by more than 5 % in mean square). No file is left
    behind then. Raises UsageError where `path` is no .onnx file or cannot be written.
    """
    source, path = Path(source), Path(path)
    require_onnx(path)
    rows = fixed_rows(source, calibration)
    with quantizer(source, calibration, method, rows) as prepared, written_together(path) as temporary:
        said = {**about_of(source), "compress.int8": f"{Int8Method(method)}, {len(calibration)} inputs"}
        write_checked(prepared, temporary, keep_float, said)
        return compared(source, temporary, path, calibration, rows, keep_float, min_agreement)


def require_onnx(path: Path) -> None:
    """Raise UsageError where `path` is no ONNX file."""
    if path.suffix.lower() != ".onnx":
        raise UsageError(f"int8 is written as ONNX, not as {path.name}", fix="name a .onnx file")


def fixed_rows(source: Path, calibration: Tensor) -> int | None:
    """Return the batch size that an ONNX file is fixed to, None where it is free; UsageError where inputs misfit."""
    inputs = onnx.load(source, load_external_data=False).graph.input
    if len(inputs) != 1:
        raise UsageError(f"int8 is calibrated on one input, but {source.name} takes {len(inputs)}")
    dims = inputs[0].type.tensor_type.shape.dim
    wanted = [dim.dim_value or None for dim in dims]
    given = list(calibration.shape)
    if len(wanted) != len(given) or any(w not in (None, g) for w, g in zip(wanted[1:], given[1:], strict=True)):
        raise UsageError(f"the calibration inputs have the shape {tuple(given)}, but {source.name} reads {wanted}")
    return wanted[0]


def write_checked(prepared: Quantizer, path: Path, keep_float: Sequence[str], about: Mapping[str, str]) -> None:
    """Write an int8 file that says `about` of itself; ExportError where onnxruntime cannot."""
    unknown = sorted(set(keep_float) - set(prepared.layers))
    if unknown:
        raise UsageError(f"no layer is named {unknown[0]!r}", fix=f"some are {', '.join(prepared.layers[:5])}")
    with quiet():
        try:
            prepared.write(path, keep_float=keep_float)
            proto = onnx.load(path)
        except Exception as error:
            raise ExportError(f"onnxruntime cannot quantize this network: {first_line(error)}") from error
    if not fits_in_one(proto):
        raise ExportError("the int8 file would be larger than 2 GiB")
    save(proto, path, about)


def compared(
    source: Path,
    made: Path,
    path: Path,
    calibration: Tensor,
    rows: int | None,
    keep_float: Sequence[str],
    min_agreement: float,
) -> Exported:
    """Compare the int8 file `made` with the float one; return what is known of it under its final name `path`."""
    given, reference = outputs(answers(made, rows), calibration), outputs(answers(source, rows), calibration)
    same, apart = same_class(given, reference), distance(given, reference)
    if same is not None and not same >= min_agreement:
        raise ExportError(
            f"{path} was not written: in int8 the network chooses another class on {100 * (1 - same):.1f} % of the "
            f"{len(calibration)} calibration inputs, {100 * (1 - min_agreement):.0f} % are allowed",
            fix="calibrate by another method (--int8-method), or keep what it harms in float (--int8-auto)",
        )
    if same is None and not apart <= MAX_DISTANCE:
        raise ExportError(f"{path} was not written: in int8 the outputs are off by {100 * apart:.1f} % in mean square")
    kept = f"{len(keep_float)} layers in float32: {', '.join(keep_float)}" if keep_float else ""
    return Exported(
        path=str(path),
        target="ONNX",
        bytes=made.stat().st_size,
        max_relative_error=relative_error((reference,), (given,)),
        batch_sizes=(rows or len(calibration),),
        notes=(kept,) if kept else (),
        precision=Precision.INT8,
        agreement=same,
    )
