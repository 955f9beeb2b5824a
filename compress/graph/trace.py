"""Run a network once and write down what it did: every operator the dispatcher saw, with its operands by number.

The run is on meta tensors (shapes only, no arithmetic, no memory); where the network looks at values, it is repeated on
real ones. Nothing of the network is changed: parameters are swapped for the duration of the call only.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from operator import is_not
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compress.core.errors import TraceError
from compress.graph.nodes import Nodes
from compress.graph.shapes import shaped

_TORCH = os.path.join(os.path.dirname(torch.__file__), "")  # torchvision's folder begins with the same letters
_OURS = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a tensor among an operator's arguments: the tensor's number in the trace."""

    value: int


@cache
def _packet(func: Any) -> str:
    return str(func.overloadpacket)


@dataclass(slots=True)
class Op:
    """One operator call. `outs` are the numbers of its tensor results, in order; in-place results keep their number."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[int, ...]
    path: str = ""
    frame: tuple[str, int] | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        """Note the operator's name without its overload, e.g. "aten.convolution"."""
        self.name = _packet(self.func)

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

    def __init__(self, trace: Trace, names: Mapping[int, str], seen: Callable[[Op], None] | None = None) -> None:
        """`names` maps id(tensor) of parameters and buffers to their names."""
        super().__init__()
        self.trace = trace
        self.names = names
        self.seen = seen
        self.numbers: dict[int, int] = {}
        self.known: dict[int, Tensor | weakref.ref[Tensor]] = {}
        self.path: list[str] = [""]

    def number(self, tensor: Tensor) -> int:
        """Return the tensor's number, giving it one if it is new."""
        key = id(tensor)
        found = self.numbers.get(key)
        if found is not None:
            return found
        value = len(self.trace.shapes)
        self.numbers[key] = value
        # An id is only unique while its object lives. Meta tensors cost nothing to keep; others are forgotten in time.
        self.known[key] = tensor if tensor.is_meta else weakref.ref(tensor, lambda _: self._forget(key))
        self.trace.shapes.append(tuple(tensor.shape))
        name = self.names.get(key)
        if name is not None:
            self.trace.parameters[name] = value
        return value

    def _forget(self, key: int) -> None:
        del self.numbers[key], self.known[key]

    def _ref(self, item: Any) -> Any:
        if isinstance(item, Tensor):
            return Ref(self.number(item))
        if isinstance(item, (list, tuple)):
            return [self._ref(part) for part in item]
        return item

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and record it."""
        kwargs = kwargs or {}
        out = shaped(func, args, kwargs) if self.trace.on_meta else func(*args, **kwargs)
        refs = tuple([self._ref(a) for a in args])
        named = {k: self._ref(v) for k, v in kwargs.items()} if kwargs else kwargs
        made = self._tensors(out)
        outs = tuple([self.number(t) for t in made])
        for value, tensor in zip(outs, made, strict=True):
            if self.trace.shapes[value] != tensor.shape:  # resized or transposed in place
                self.trace.shapes[value] = tuple(tensor.shape)
        op = Op(func, refs, named, outs, self.path[-1], _caller())
        self.trace.ops.append(op)
        if self.seen is not None:
            self.seen(op)
        return out

    @staticmethod
    def _tensors(out: Any) -> list[Tensor]:
        if isinstance(out, Tensor):
            return [out]
        return [o for o in out if isinstance(o, Tensor)] if isinstance(out, (list, tuple)) else []


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
            return None if name.startswith(_OURS) else (name, frame.f_lineno)  # who called us is not the network
        frame = frame.f_back
    return None


@contextmanager
def quiet_module(module: nn.Module) -> Iterator[None]:
    """Keep what the module remembers, and attention on its Python path (its fused kernel hides the operators).

    Train/eval modes, attributes, buffers and dictionaries that forward fills as caches are afterwards as they were.
    """
    states = [(d, dict(d)) for _, m in walk(module) for d in _remembered(m)]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for now, before in states:
            if now.keys() != before.keys() or any(map(is_not, now.values(), before.values())):
                now.clear()
                now.update(before)


def _remembered(m: nn.Module) -> list[dict[str, Any]]:
    """The dictionaries a module keeps its state in: its attributes, and those that are dictionaries (hooks too)."""
    return [vars(m), *(item for item in vars(m).values() if isinstance(item, dict))]


def set_mode(module: nn.Module, *, train: bool) -> None:
    """Switch to training or evaluation; an exported graph has only the mode it was exported in."""
    if not isinstance(module, fx.GraphModule) and any(m.training is not train for _, m in walk(module)):
        module.train(train)


@contextmanager
def module_paths(module: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Tell the recorder which submodule is running."""
    names = {id(m): name for name, m in walk(module)}

    def enter(m: nn.Module, _: Any) -> None:
        recorder.path.append(names.get(id(m), recorder.path[-1]))

    def leave(_m: nn.Module, _i: Any, _o: Any) -> None:
        recorder.path.pop()

    before = torch_module.register_module_forward_pre_hook(enter)
    after = torch_module.register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()


def walk(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every submodule once, with its path, in the order of `named_modules`, whose nested generators take long."""
    found: dict[int, tuple[str, nn.Module]] = {}
    waiting: list[tuple[str, nn.Module]] = [("", module)]
    while waiting:
        path, part = waiting.pop()
        if id(part) not in found:
            found[id(part)] = path, part
            inner = [(f"{path}.{n}" if path else n, m) for n, m in part._modules.items() if m is not None]
            waiting += reversed(inner)
    return list(found.values())


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tensor shared by several names appears once, under the first."""
    parts = walk(module)
    found: dict[int, tuple[str, Tensor]] = {}
    for table in ("_parameters", "_buffers"):
        for path, part in parts:
            for name, tensor in getattr(part, table).items():
                if tensor is not None:
                    found.setdefault(id(tensor), (f"{path}.{name}" if path else name, tensor))
    return dict(found.values())


@contextmanager
def replaced(module: nn.Module, others: Mapping[int, Tensor]) -> Iterator[None]:
    """Put other tensors in the place of parameters and buffers, by id of these; afterwards they are back."""
    tables: list[dict[str, Any]] = [table for _, m in walk(module) for table in (m._parameters, m._buffers)]
    before = [dict(table) for table in tables]
    try:
        for table in tables:
            for name, own in table.items():
                if own is not None:
                    table[name] = others[id(own)]
        yield
    finally:
        for table, owned in zip(tables, before, strict=True):
            table.update(owned)


def trace(module: nn.Module, example: tuple[Any, ...], *, train: bool = False) -> Trace:
    """Run `module` on `example` (on meta tensors where it can) and return what it did.

    Raises TraceError with the first line of the cause where the network does not run on the example at all.
    """
    failure: Exception | None = None
    for meta in (True, False):
        with quiet_module(module):  # each attempt starts afresh: the network may keep what the first one computed
            set_mode(module, train=train)
            try:
                return _run(module, example, meta=meta)
            except Exception as error:
                if train:
                    raise  # a training pass on real tensors would move the running statistics
                failure = error
    assert failure is not None
    shapes = [tuple(t.shape) for t in pytree.tree_leaves(example) if isinstance(t, Tensor)]
    raise TraceError(
        f"the network does not run on an input of shape {', '.join(map(str, shapes))}: "
        f"{str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__}",
        fix="give the shape it expects with --input-shape",
    ) from failure


def attempt(module: nn.Module, example: tuple[Any, ...], *, meta: bool) -> tuple[Trace, str | None]:
    """Run `module` in evaluation mode as far as it goes: what it did, and what stopped it (None: nothing did)."""
    record = Trace(on_meta=meta)
    with quiet_module(module):
        set_mode(module, train=False)
        try:
            _run(module, example, meta=meta, record=record)
        except Exception as error:  # noqa: BLE001 - the caller asks whether it runs
            text = str(error).strip().splitlines()
            return record, text[0] if text else type(error).__name__
    return record, None


def _batch(example: tuple[Any, ...]) -> int:
    """Inputs in the example: the first tensor's first dimension; a list of images has its length."""
    first = example[0] if example else None
    if isinstance(first, Tensor):
        return first.shape[0] if first.dim() else 1
    return len(first) if isinstance(first, (list, tuple)) else 1


def _run(module: nn.Module, example: tuple[Any, ...], *, meta: bool, record: Trace | None = None) -> Trace:
    real = tensors_of(module)
    used = {n: torch.empty_like(t, device="meta") for n, t in real.items()} if meta else real
    record = Trace(on_meta=meta) if record is None else record
    recorder = Recorder(record, {id(t): n for n, t in used.items()})
    inputs = pytree.tree_map_only(Tensor, lambda t: t.to("meta") if meta else t, example)
    record.batch = _batch(example)
    record.inputs = tuple(recorder.number(t) for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor))
    with module_paths(module, recorder), recorder:
        if isinstance(module, fx.GraphModule):
            with _reparametrize_module(module, used, tie_weights=True):
                out = Nodes(module, recorder, meta=meta).run(*inputs)
        elif meta:
            with replaced(module, {id(t): used[n] for n, t in real.items()}):
                out = module(*inputs)
        else:
            out = module(*inputs)
    record.outputs = tuple(recorder.number(t) for t in tensors_in(out))
    for name, value in record.parameters.items():
        if not real[name].is_floating_point():
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
