"""Read a TorchScript archive as a graph of ATen operators whose parameters keep their names.

The archive's graph is translated operator by operator, not run through a tracer, so a batch dimension that the
archive left free stays free. Every result is run against the archive before it is believed.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from compress.checkpoint.exported import graph_module
from compress.checkpoint.inputs import BATCH, checked, example, image_channels, shape_unknown
from compress.checkpoint.interpreted import without_interpreter
from compress.checkpoint.scalars import scalars_to_numbers
from compress.checkpoint.statedict import require_no_nan
from compress.core.errors import CheckpointError, CompressError, UsageError, first_line, kind_and_line
from compress.core.types import Network

DEFAULT_SIDE = 224
TOLERANCE = 1e-4


def read_torchscript(path: Path, input_shape: tuple[int, ...] | None = None) -> Network:
    """Return the network in the TorchScript archive at `path`, with parameters that can be cut.

    Raises what `read_archive` does, and CheckpointError where the archive holds no parameters.
    """
    if next(_loaded(path).parameters(), None) is None:
        raise CheckpointError(
            f"{path} has no parameters: its weights are frozen into the code", fix="save it without torch.jit.freeze"
        )
    return read_archive(path, input_shape)


def read_archive(path: Path, input_shape: tuple[int, ...] | None = None) -> Network:
    """Return what the TorchScript archive at `path` computes; one that was frozen has constants for parameters.

    `input_shape` has the batch first; without it, 224 x 224 images of as many channels as the first convolution
    reads are tried. Raises CheckpointError where the archive is damaged, cannot be run on the default shape, or cannot
    be translated; UsageError where it cannot be run on `input_shape`.
    """
    script = _loaded(path)
    require_no_nan(dict(script.named_parameters()), path)
    shape, note = _shape(script, path, input_shape)
    batch = _batch_that_runs(script, shape, path, given=input_shape is not None)
    sample = example(shape, batch)
    module = _faithful(script, sample, path)
    dynamic = batch == BATCH and _same(script, module, example(shape, BATCH + 1))
    notes = [note] if note else []
    if not dynamic:
        notes.append(f"the archive's code works for batch {batch} only, and so will what is made of it")
    return Network(
        name=path.stem, module=module, example=sample, kind="torchscript", dynamic_batch=dynamic, notes=tuple(notes)
    )


def _loaded(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:
        raise CheckpointError(
            f"{path} is not a readable TorchScript archive: {first_line(error)[:200]}",
            fix="save it again with torch.jit.save",
        ) from error


def _shape(script: nn.Module, path: Path, given: tuple[int, ...] | None) -> tuple[tuple[int, ...], str]:
    if given is not None:
        return checked(given), ""
    channels = image_channels(script)
    if channels is None:
        raise shape_unknown(path)
    shape = (1, channels, DEFAULT_SIDE, DEFAULT_SIDE)
    return shape, f"input shape {','.join(map(str, shape))} (assumed; say otherwise with --input-shape)"


def _batch_that_runs(script: Any, shape: tuple[int, ...], path: Path, *, given: bool) -> int:
    problem = ""
    for batch in dict.fromkeys((BATCH, shape[0], 1)):
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the archive's own
                script(*example(shape, batch))
            return batch
        except RuntimeError as error:
            problem = str(error).strip().rpartition("\n")[2]
    kind: type[CompressError] = UsageError if given else CheckpointError
    raise kind(
        f"{path} cannot be run on inputs of shape {','.join(map(str, shape))}: {problem}",
        fix="add the right shape, as in --input-shape 1,3,224,224",
    )


def _faithful(script: Any, sample: tuple[Tensor], path: Path) -> nn.Module:
    """Return the first translation that computes what the archive computes: untraced, else traced once more.

    Tracing settles what only the interpreter can run (warnings, copies of lists), at the price of fixing sizes.
    """
    for retrace in (False, True):
        # a graph that cannot be run prints a traceback of its generated code; the error below says it in a sentence
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            module = _translated(script, sample, path, retrace=retrace)
            faithful = _same(script, module, sample)
        if faithful:
            return module
    raise CheckpointError(
        f"{path}: the graph translated from this archive does not compute what the archive computes",
        fix="give the state dict and --arch instead, or a .pt2 from torch.export",
    )


def _translated(script: Any, sample: tuple[Tensor], path: Path, *, retrace: bool) -> nn.Module:
    # torch keeps this converter under a private name, but has no other way from TorchScript to ATen graphs
    from torch._export.converter import TS2EPConverter

    class Untraced(TS2EPConverter):
        """Stops before the converter traces its own result, which would fix or rename symbolic sizes."""

        def retrace_as_exported_program(self, gm: fx.GraphModule, name_to_constant: dict[str, Any]) -> Any:
            without_interpreter(scalars_to_numbers(gm))
            if not retrace and all(_plain(node) for node in gm.graph.nodes):
                return _Translated(gm)
            return super().retrace_as_exported_program(gm, name_to_constant)

    class _Translated:
        """Looks to the converter like the program it expects."""

        def __init__(self, graph: fx.GraphModule) -> None:
            self.graph = graph
            self.state_dict: dict[str, Any] = {}

    try:
        result: Any = Untraced(script, sample).convert()
    except Exception as error:
        raise CheckpointError(
            f"{path}: this archive cannot be translated ({kind_and_line(error)[:200]})",
            fix="give the state dict and --arch instead, or a .pt2 from torch.export",
        ) from error
    module = result.graph if isinstance(result, _Translated) else graph_module(result)
    _restore_parameters(module, script)
    return module


def _plain(node: fx.Node) -> bool:
    """Whether a node is an operator on tensors or numbers, with no sub-graph that depends on a value."""
    return node.op != "call_function" or not isinstance(node.target, torch._ops.HigherOrderOperator)


def _restore_parameters(module: nn.Module, script: nn.Module) -> None:
    """Make parameters of the tensors that were ones in the archive; the converter leaves all as buffers."""
    for name, value in script.named_parameters():
        parent, _, leaf = name.rpartition(".")
        try:
            owner = module.get_submodule(parent)
        except AttributeError:
            continue  # the graph does not use it
        if leaf in owner._buffers:
            del owner._buffers[leaf]
            owner.register_parameter(leaf, nn.Parameter(value.detach(), requires_grad=True))


def _same(script: Any, module: nn.Module, inputs: tuple[Tensor]) -> bool:
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the archive's own
            expected, found = script(*inputs), module(*inputs)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError):
        return False
    expected, found = _tensors(expected), _tensors(found)
    if len(expected) != len(found) or any(e.shape != f.shape for e, f in zip(expected, found, strict=True)):
        return False
    scale = max((float(e.abs().max()) for e in expected), default=0.0)
    worst = max((float((e - f).abs().max()) for e, f in zip(expected, found, strict=True)), default=0.0)
    return worst <= TOLERANCE * max(scale, 1e-12)


def _tensors(value: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]
