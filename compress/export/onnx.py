"""`.onnx`: through PyTorch's exporter, simplified by onnxsim, checked by onnx, run by onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import onnxsim
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from compress.core.errors import ExportError
from compress.export.parity import tensors_of
from compress.export.target import TARGETS, Job, Loaded, Target
from compress.export.trace import exported_program

# A protobuf message ends at 2 GiB; the margin is for the graph around the weights.
LARGEST = 2**31 - 2**24


def write(job: Job) -> tuple[str, ...]:
    """Write `job.path` as one ONNX file, weights inside.

    Inputs are named input, input_1, ...; outputs output, output_1, ...; the free dimension is named batch.
    Raises ExportError where the weights do not fit into one file, or the asked opset cannot be had.
    """
    _require_room(job)
    plain = _converted(job)
    onnx.checker.check_model(plain)
    simple, why_not = _simplified(plain, job)
    job.path.write_bytes((plain if simple is None else simple).SerializeToString())
    return () if simple is not None else (f"not simplified: {why_not}",)


def load(path: Path) -> Loaded:
    """Reload a file in onnxruntime on the CPU as a function from inputs to outputs."""
    return _session(str(path))


def _require_room(job: Job) -> None:
    tensors = chain(job.module.parameters(), job.module.buffers())
    size = sum(t.numel() * t.element_size() for t in tensors)
    if size > LARGEST:
        raise ExportError(
            f"the weights take {size / 2**30:.1f} GiB, and one ONNX file holds at most 2 GiB",
            fix="write a .pt2 or a .ts file",
        )


def _converted(job: Job) -> Any:
    """Return the network as an onnx ModelProto of the asked opset."""
    with torch.no_grad():
        outputs = len(tensors_of(job.module(*job.example)))
    traced = exported_program(job.module, job.example, job.batched)
    try:
        program = _exported(traced, job, outputs)
    except Exception:  # noqa: BLE001 - attention that the exporter has no operator for is written out as products
        with sdpa_kernel(SDPBackend.MATH):
            program = _exported(traced.run_decompositions(), job, outputs)
    if program is None:
        raise ExportError("the exporter returned nothing")
    proto = program.model_proto
    opset = next(entry.version for entry in proto.opset_import if entry.domain in {"", "ai.onnx"})
    if job.opset is not None and opset != job.opset:
        # The exporter only warns when it cannot convert, and hands over another opset.
        raise ExportError(
            f"opset {job.opset} was asked for, but this network can be had as opset {opset}",
            fix="leave the opset out, or ask for another",
        )
    _strip(proto)
    if any(job.batched):
        _name_batch(proto, job.batched.index(True))
    return proto


def _exported(traced: ExportedProgram, job: Job, outputs: int) -> Any:
    return torch.onnx.export(
        traced,
        (),
        dynamo=True,
        verbose=False,
        opset_version=job.opset,
        input_names=_names("input", len(job.example)),
        output_names=_names("output", outputs),
        external_data=False,
    )


def _names(stem: str, count: int) -> list[str]:
    return [stem if i == 0 else f"{stem}_{i}" for i in range(count)]


def _values(graph: Any) -> Iterator[Any]:
    return chain(graph.input, graph.output, graph.value_info)


def _strip(proto: Any) -> None:
    """Drop the notes that exporters leave for themselves: they hold local paths, and nobody reads them."""
    proto.ClearField("metadata_props")
    graph = proto.graph
    graph.ClearField("metadata_props")
    for part in chain(graph.node, _values(graph), graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _name_batch(proto: Any, position: int) -> None:
    """Call the free dimension "batch" instead of the symbol that the trace invented for it."""
    symbol = proto.graph.input[position].type.tensor_type.shape.dim[0].dim_param
    if not symbol:
        raise ExportError("the exporter fixed the batch size")
    whole = re.compile(rf"\b{re.escape(symbol)}\b")
    for value in _values(proto.graph):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = whole.sub("batch", dim.dim_param)


def _simplified(plain: Any, job: Job) -> tuple[Any | None, str]:
    """Return onnxsim's version of `plain` where it still computes the same, else None and the reason."""
    try:
        simple, _ = onnxsim.simplify(plain)
        _strip(simple)
        onnx.checker.check_model(simple)
        if not job.agrees(_session(simple.SerializeToString())):
            return None, "what onnxsim made of it computes something else"
    except Exception as error:  # noqa: BLE001  onnxsim is optional: the plain file is as right, and the note says why
        return None, f"onnxsim failed ({(str(error) or repr(error)).splitlines()[0]})"
    return simple, ""


def _session(model: str | bytes) -> Loaded:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        arrays = [x.detach().cpu().numpy() for x in inputs]
        outputs = session.run(None, dict(zip(names, arrays, strict=True)))
        return tuple(torch.from_numpy(y.copy()) for y in outputs)

    return run


TARGETS.add(".onnx", Target(name="ONNX", write=write, load=load))
