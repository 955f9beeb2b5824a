"""Run a network once and write down what it did: every operator the dispatcher saw, with its operands by number.

The run is on meta tensors (shapes only, no arithmetic, no memory); where the network looks at values, it is repeated on
real ones. Nothing of the network is changed: parameters are swapped for the duration of the call only.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compress.core.errors import TraceError, first_line
from compress.graph.modules import (
    Parts,
    attributes_of,
    by_operators,
    quiet_module,
    replaced,
    require_python,
    set_mode,
    state_of,
    walk,
)
from compress.graph.nodes import Nodes
from compress.graph.shapes import empty_as, shaped

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")  # torchvision's folder begins with the same letters
_OURS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a tensor among an operator's arguments: the tensor's number in the trace."""

    value: int


_NAMES: dict[int, tuple[Any, str]] = {}


def _packet(func: Any) -> str:
    """The operator's name; by identity, since hashing an operator runs Python code (the table keeps it alive)."""
    found = _NAMES.get(id(func))
    if found is None:
        found = _NAMES[id(func)] = func, str(func.overloadpacket)
    return found[1]


@dataclass(slots=True)
class Op:
    """One operator call. `outs` are the numbers of its tensor results, in order.

    What is written in place keeps its number, unless it has another shape then.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[int, ...]
    path: str = ""
    frame: tuple[str, int] | None = None
    name: str = field(init=False)
    reads: list[int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Note the operator's name without its overload, e.g. "aten.convolution"."""
        self.name = _packet(self.func)

    @property
    def plain(self) -> str:
        """The name of what it computes, in place or not: "aten.relu" of "aten.relu_"."""
        return self.name.removesuffix("_")

    @property
    def where(self) -> str:
        """Module path and source line, as a user would look it up."""
        line = f"{os.path.basename(self.frame[0])}:{self.frame[1]}" if self.frame else ""
        return " ".join(part for part in (self.path or "the network itself", f"({line})" if line else "") if part)


@dataclass(slots=True)
class Trace:
    """What one forward pass did. Values are numbered; `shapes[v]` is the shape of value v.

    `parameters` maps parameter and buffer names to value numbers; names that no operator read are absent.
    `nodes` maps the names of a graph module's nodes to the value numbers of their results.
    `batch` is the number of inputs in the example. `constants` holds tensors whose contents are known: buffers, and
    everything when the run was on real tensors.
    """

    ops: list[Op] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    constants: dict[int, Tensor] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    on_meta: bool = True
    batch: int = 1


class Recorder(TorchDispatchMode):
    """Numbers every tensor and records every operator; `seen` is called with each finished Op."""

    def __init__(
        self, trace: Trace, names: dict[int, str], seen: Callable[[Op], None] | None = None, *, placed: bool = True
    ) -> None:
        """`names` maps id(tensor) of what the network holds to its name; `placed`: operators know where they are."""
        super().__init__()
        self.placed = placed
        self.trace = trace
        self.names = names
        self.seen = seen
        self.numbers: dict[int, Ref] = {}
        self.known: dict[int, Tensor | weakref.ref[Tensor]] = {}
        self.path: list[str] = [""]

    def number(self, tensor: Tensor) -> int:
        """Return the tensor's number, giving it one if it is new."""
        key = id(tensor)
        found = self.numbers.get(key)
        if found is not None:
            return found.value
        value = len(self.trace.shapes)
        self.numbers[key] = Ref(value)
        # An id is only unique while its object lives. Meta tensors cost nothing to keep; others are forgotten in time.
        self.known[key] = tensor if tensor.is_meta else weakref.ref(tensor, lambda _: self._forget(key))
        self.trace.shapes.append(tuple(tensor.shape))
        name = self.names.get(key)
        if name is not None:
            self.trace.parameters[name] = value
        return value

    def result(self, tensor: Tensor) -> int:
        """Return the number of what an operator gave; what it resized or transposed in place is another value then."""
        value = self.number(tensor)
        if self.trace.shapes[value] != tensor.shape:
            del self.numbers[id(tensor)]
            value = self.number(tensor)
        return value

    def _forget(self, key: int) -> None:
        del self.numbers[key], self.known[key]

    def _ref(self, item: Any) -> Any:
        kind = type(item)
        if kind in _PLAIN:
            return item
        if kind is Tensor or isinstance(item, Tensor):
            found = self.numbers.get(id(item))
            if found is None:
                value = self.number(item)
                if item.dim() < 2 and not item.is_meta:
                    self.trace.constants[value] = item  # nothing made it: its values are the network's own
                found = self.numbers[id(item)]
            return found
        if isinstance(item, (list, tuple)):
            known = self.numbers  # what has a number is a tensor that lives, and nothing else has its id
            return [known.get(id(part)) or self._ref(part) for part in item]
        return item

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare every operator PyTorch's wrapper against compilation: nothing is compiled while a mode is active."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and record it."""
        kwargs = kwargs or {}
        trace, ref = self.trace, self._ref
        out = shaped(func, args, kwargs) if trace.on_meta else func(*args, **kwargs)
        refs = tuple([ref(a) for a in args])
        named = {k: ref(v) for k, v in kwargs.items()} if kwargs else kwargs
        outs = tuple([self.result(tensor) for tensor in self._tensors(out)])
        op = Op(func, refs, named, outs, self.path[-1], _caller() if self.placed else None)
        trace.ops.append(op)
        if self.seen is not None:
            self.seen(op)
        return out

    @staticmethod
    def _tensors(out: Any) -> list[Tensor]:
        if isinstance(out, Tensor):
            return [out]
        return [o for o in out if isinstance(o, Tensor)] if isinstance(out, (list, tuple)) else []


_PLAIN: frozenset[type] = frozenset({int, bool, float, str, type(None), torch.dtype, torch.device})
_SKIP: dict[str, bool] = {}


def _caller() -> tuple[str, int] | None:
    """File and line of the innermost frame of the network's code; None where it is PyTorch's own throughout."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        skip = _SKIP.get(name)
        if skip is None:
            skip = _SKIP[name] = name.startswith((_TORCH, "<"))
        if not skip:
            if not name.startswith(_OURS):
                return name, frame.f_lineno
            if frame.f_code.co_name != _CALLER:
                return None  # who called us is not the network
        frame = frame.f_back
    return None


@contextmanager
def module_paths(module: nn.Module, recorder: Recorder, parts: Parts | None = None) -> Iterator[None]:
    """Tell the recorder which submodule is running.

    Calls of a module go where those of a compiled one would (`nn.Module.compile`): a hook would send every call through
    PyTorch's slow path, and hooks for all modules would see those of other threads too.
    """
    path = recorder.path

    def called(name: str, m: nn.Module, *args: Any, **kwargs: Any) -> Any:
        path.append(name)
        try:
            return m._call_impl(*args, **kwargs)
        finally:
            path.pop()

    tables = []
    for name, m in walk(module) if parts is None else parts:
        table = vars(m)
        tables.append((table, table.get(_CALL, _NONE)))
        table[_CALL] = partial(called, name, m)
    try:
        yield
    finally:
        for table, before in tables:
            if before is _NONE:
                table.pop(_CALL, None)
            else:
                table[_CALL] = before


_CALL, _CALLER, _NONE = "_compiled_call_impl", "called", object()


def trace(module: nn.Module, example: tuple[Any, ...], *, train: bool = False) -> Trace:
    """Run `module` on `example` (on meta tensors where it can) and return what it did.

    Raises TraceError with the first line of the cause where the network does not run on the example at all.
    """
    failure: Exception | None = None
    parts = walk(module)
    require_python(parts)
    for meta in (True, False):
        with quiet_module(module, parts):  # each attempt starts afresh: the network may keep what the first computed
            set_mode(module, train=train, parts=parts)
            try:
                return _run(module, example, meta=meta, parts=parts)
            except Exception as error:
                if train:
                    raise  # a training pass on real tensors would move the running statistics
                failure = error
    assert failure is not None
    shapes = [tuple(t.shape) for t in pytree.tree_leaves(example) if isinstance(t, Tensor)]
    raise TraceError(
        f"the network does not run on an input of shape {', '.join(map(str, shapes))}: {first_line(failure)}",
        fix="give the shape it expects with --input-shape",
    ) from failure


def attempt(module: nn.Module, example: tuple[Any, ...], *, meta: bool) -> tuple[Trace, str | None]:
    """Run `module` in evaluation mode as far as it goes: what it did, and what stopped it (None: nothing did).

    The operators do not know their places in the code.
    """
    record, parts = Trace(on_meta=meta), walk(module)
    with quiet_module(module, parts):
        set_mode(module, train=False, parts=parts)
        try:
            _run(module, example, meta=meta, record=record, parts=parts, placed=False)
        except Exception as error:  # noqa: BLE001 - the caller asks whether it runs
            return record, first_line(error)
    return record, None


def _batch(example: tuple[Any, ...]) -> int:
    """Inputs in the example: the first tensor's first dimension; a list of images has its length."""
    first = example[0] if example else None
    if isinstance(first, Tensor):
        return first.shape[0] if first.dim() else 1
    return len(first) if isinstance(first, (list, tuple)) else 1


def _run(
    module: nn.Module,
    example: tuple[Any, ...],
    *,
    meta: bool,
    parts: Parts,
    record: Trace | None = None,
    placed: bool = True,
) -> Trace:
    real = state_of(parts)
    plain = attributes_of(parts, real)
    used = {n: empty_as(t) for n, t in real.items()} if meta else real
    record = Trace(on_meta=meta) if record is None else record
    recorder = Recorder(record, {id(t): n for n, t in (used | plain).items()}, placed=placed)
    inputs = pytree.tree_map_only(Tensor, lambda t: t.to("meta") if meta else t.clone(), example)
    record.batch = _batch(example)
    record.inputs = tuple(recorder.number(t) for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor))
    whole = nullcontext() if meta else by_operators()
    with whole, module_paths(module, recorder, parts) if placed else nullcontext(), recorder:
        if isinstance(module, fx.GraphModule):
            with _reparametrize_module(module, used, tie_weights=True):
                out = Nodes(module, recorder, meta=meta).run(*inputs)
        elif meta:
            with replaced(module, {id(t): used[n] for n, t in real.items()}, parts):
                out = module(*inputs)
        else:
            out = module(*inputs)
    record.outputs = tuple(recorder.number(t) for t in tensors_in(out))
    for name, value in record.parameters.items():
        if name in real and not real[name].is_floating_point():
            record.constants[value] = real[name]
    return record


def tensors_in(out: Any) -> list[Tensor]:
    """All tensors in a network's output: tuples, dicts, dataclasses and plain objects are looked into."""
    found: list[Tensor] = []
    for leaf in pytree.tree_leaves(out):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (type, nn.Module)) and not callable(leaf):
            found += [t for item in vars(leaf).values() for t in tensors_in(item)]
    return found
