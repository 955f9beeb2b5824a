"""`.onnx`: through PyTorch's exporter, simplified by onnxsim, checked by onnx, run by onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
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

from compress.core.deploying import Precision
from compress.core.errors import ExportError, first_line
from compress.export.doubled import in_double
from compress.export.half import half_onnx
from compress.export.onnx_names import name_outputs, numbered, output_names
from compress.export.onnx_opset import newest_opset
from compress.export.onnx_save import fits_in_one, save
from compress.export.onnx_tidy import tidy
from compress.export.parity import answer_of
from compress.export.pools import with_means
from compress.export.target import TARGETS, Job, Loaded, Target
from compress.export.trace import exported_program
from compress.graph.modules import fresh

# Rewrites of onnxsim that make more operators than there were: one matrix product becomes a Gemm between two Reshapes.
UNWANTED = ["fuse_matmul_add_bias_into_gemm", "fuse_matmul_add_bias_into_gemm_batched"]


def write(job: Job) -> tuple[str, ...]:
    """Write `job.path` as an ONNX file, with its weights inside, or beside it where they take more than 2 GiB.

    Inputs are named input, input_1, ...; outputs output, output_1, ..., or by their keys in a dict of tensors; free
    dimensions batch, height, width.
    Raises ExportError where the asked opset cannot be had.
    """
    plain, notes = _at_opset(job)
    if fits_in_one(plain):
        onnx.checker.check_model(plain)
        simple, why_not = _simplified(plain, job)
    else:
        simple, why_not = None, "onnxsim takes at most 2 GiB"
    notes += () if simple is not None else (f"not simplified: {why_not}",)
    best = plain if simple is None else simple
    if job.precision is Precision.FLOAT16:
        best = half_onnx(best)
    return notes + save(best, job.path, job.about)


def load(path: Path) -> Loaded:
    """Reload a file in onnxruntime on the CPU as a function from inputs to outputs."""
    return _session(str(path))


def load_double(path: Path) -> Loaded:
    """Reload a file as a function that computes it in float64, in onnx's own reference implementation."""
    model = onnx.load(path)
    return lambda inputs: in_double(model, inputs)


def _at_opset(job: Job) -> tuple[Any, tuple[str, ...]]:
    """Return the network as a ModelProto of the asked opset, by default the newest that onnxruntime fully supports."""
    newest = newest_opset()
    if job.opset is not None or newest is None:
        return _converted(job), ()
    try:
        return _converted(replace(job, opset=newest)), ()
    except Exception as error:  # noqa: BLE001 - an older set is as good a file; where that fails too, its error counts
        plain = _converted(job)
        return plain, (f"not opset {newest}, the newest that onnxruntime fully supports: {first_line(error)}",)


def _converted(job: Job) -> Any:
    """Return the network as an onnx ModelProto of the asked opset."""
    with torch.no_grad():
        answer = job.module(*fresh(job.example))
    outputs = len(answer_of(answer))
    traced = with_means(exported_program(job.module, job.example, job.batched, job.sized))
    try:
        program = _exported(traced, job, outputs)
    except Exception:  # noqa: BLE001 - attention that the exporter has no operator for is written out as products
        with sdpa_kernel(SDPBackend.MATH):
            program = _exported(traced.run_decompositions(), job, outputs)
    if program is None:
        raise ExportError("the exporter returned nothing")
    name_outputs(program.model.graph, output_names(answer, outputs))
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
        _name_free(proto, job.batched.index(True), {0: "batch"})
    if any(job.sized):
        _name_free(proto, job.sized.index(True), {2: "height", 3: "width"})
    return proto


def _exported(traced: ExportedProgram, job: Job, outputs: int) -> Any:
    return torch.onnx.export(
        traced,
        (),
        dynamo=True,
        verbose=False,
        opset_version=job.opset,
        input_names=numbered("input", len(job.example)),
        output_names=numbered("output", outputs),
        external_data=False,
        optimize=not (_bounded_twice(traced) or _adds_little(traced)),
    )


def _bounded_twice(traced: ExportedProgram) -> bool:
    """Whether one tensor is clamped more than once by bounds that are tensors.

    The exporter's optimiser names the bounds after the tensor, so that those of different clamps become one, and the
    file invalid. onnxsim folds such a file as well.
    """
    bounds = (torch.ops.aten.clamp.Tensor, torch.ops.aten.minimum.default, torch.ops.aten.maximum.default)
    return any(sum(user.target in bounds for user in node.users) > 1 for node in traced.graph.nodes)


def _adds_little(traced: ExportedProgram) -> bool:
    """Whether a number that is nearly zero is added: what keeps a quotient finite where its denominator is zero.

    The exporter's optimiser takes what is within 1e-8 of zero for zero, and leaves the addition out.
    """
    sums = (torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor, torch.ops.aten.add.Scalar, torch.ops.aten.sub.Scalar)
    given = [item for node in traced.graph.nodes if node.target in sums for item in node.args]
    held = [t.item() for t in (*traced.state_dict.values(), *traced.constants.values()) if _is_number(t)]
    return any(isinstance(item, float) and 0 < abs(item) <= 1e-8 for item in (*given, *held))


def _is_number(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and item.dim() == 0 and item.is_floating_point()


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


def _name_free(proto: Any, position: int, names: Mapping[int, str]) -> None:
    """Give the free dimensions of one input their `names`, instead of the symbols that the trace invented for them."""
    for axis, name in names.items():
        symbol = proto.graph.input[position].type.tensor_type.shape.dim[axis].dim_param
        if not symbol:
            raise ExportError(f"the exporter fixed the {name} size")
        whole = re.compile(rf"\b{re.escape(symbol)}\b")
        for value in _values(proto.graph):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = whole.sub(name, dim.dim_param)


def _simplified(plain: Any, job: Job) -> tuple[Any | None, str]:
    """Return onnxsim's version of `plain` where it still computes the same, else None and the reason."""
    try:
        simple, _ = onnxsim.simplify(plain, skipped_optimizers=UNWANTED)
        simple = tidy(simple)
        _strip(simple)
        onnx.checker.check_model(simple)
        if not job.agrees(_session(simple.SerializeToString())):
            if not job.agrees(_session(plain.SerializeToString())):
                return None, "float32 is too coarse for this network to tell whether onnxsim left it as it was"
            return None, "what onnxsim made of it computes something else"
    except Exception as error:  # noqa: BLE001  onnxsim is optional: the plain file is as right, and the note says why
        return None, f"onnxsim failed ({first_line(error)})"
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


TARGETS.add(".onnx", Target(name="ONNX", write=write, load=load, load_double=load_double))
