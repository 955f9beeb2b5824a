"""The masked reference: the original network, in which what the plan removes is made silent where it is read.

The original runs unchanged, operator by operator, while labels follow along:
- where a contraction (convolution, linear, matrix product, sum) reads a removed channel, the channel is multiplied by
  zero;
- where a normalisation takes statistics over a dimension that loses channels (layer norm, group norm with few groups,
  RMS norm, weight standardisation), they are taken over the kept channels only, as the cut network does.
Everything else computes on all channels. With `double` all arithmetic is in float64, parameters being widened one at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compress.graph.analyse import Analysis, apply_rule
from compress.graph.couplings import Couplings, operands
from compress.graph.modules import fresh, quiet_module, set_mode, tensors_of
from compress.graph.rewrite import Sizes, new_constants
from compress.graph.rules.table import arguments
from compress.graph.trace import Op, Recorder, Ref, Trace, module_paths, tensors_in

_WIDER = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
}
_NARROWING = (Tensor.float, Tensor.half, Tensor.bfloat16)


def _widen(item: Any) -> Any:
    if isinstance(item, Tensor):
        return item.to(_WIDER[item.dtype]) if item.dtype in _WIDER else item
    return _WIDER.get(item, item) if isinstance(item, torch.dtype) else item


class Double(TorchFunctionMode):
    """Computes everything in float64, whatever the parameters are stored in; no widened copy outlives its use."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Widen the operands, run, widen what a factory made."""
        func = Tensor.double if func in _NARROWING else func
        return pytree.tree_map(_widen, func(*pytree.tree_map(_widen, args), **pytree.tree_map(_widen, kwargs or {})))


def convolve(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator; a grouped 2-d float64 convolution, for which PyTorch loops over groups, as one product."""
    if str(func.overloadpacket) != "aten.convolution" or kwargs or args[0].dtype != torch.float64:
        return func(*args, **kwargs)
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args
    if groups == 1 or transposed or x.dim() != 4:
        return func(*args)
    stride, padding, dilation = ((*n, *n)[:2] for n in (stride, padding, dilation))  # one number may stand for both
    kernels = weight.reshape(groups, weight.shape[0] // groups, -1)
    samples = []
    for one in x.split(1):  # the columns are k * k times as large as the input: those of one sample at a time
        columns = torch.nn.functional.unfold(one, weight.shape[2:], dilation, padding, stride)  # (1, I k k, L)
        samples.append(kernels @ columns.reshape(groups, -1, columns.shape[2]))
    y = torch.stack(samples)
    height = (x.shape[2] + 2 * padding[0] - dilation[0] * (weight.shape[2] - 1) - 1) // stride[0] + 1
    y = y.reshape(len(x), weight.shape[0], height, -1)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


class FastGroups(TorchDispatchMode):
    """Computes grouped convolutions as `convolve` does."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator."""
        return convolve(func, args, kwargs or {})


# What comes and goes between a run on meta tensors and one in float64, and makes no labels.
_IDLE = ("aten._to_copy", "aten.detach", "aten.alias", "aten.lift_fresh")


class Silence(Recorder):
    """Runs the original with the dead labels silent; see the module's docstring."""

    def __init__(self, analysis: Analysis, dead: np.ndarray, names: dict[int, str]) -> None:
        """`dead[label]` is True where the label leaves; `names` maps id(tensor) to parameter names."""
        super().__init__(Trace(on_meta=False), names)
        self.analysis = analysis
        self.couplings = Couplings(analysis.attention, self.trace.shapes, self.trace.constants)
        self.couplings.count = self.couplings.parameter_labels = analysis.couplings.parameter_labels
        self.dead = dead.copy()
        self.awaited: list[Op] | None = list(reversed(analysis.traces[0].ops))

    def number(self, tensor: Tensor) -> int:
        """Number the tensor; a parameter brings its labels."""
        known = id(tensor) in self.numbers
        value = super().number(tensor)
        name = None if known else self.names.get(id(tensor))
        if name is not None:
            labels = self.analysis.parameters[name]
            self.couplings.set(value, [((d,), a) for d, a in enumerate(labels) if a is not None])
            self.couplings.const.add(value)
        return value

    def _dies(self, labels: np.ndarray) -> np.ndarray:
        """Labels that the run itself made (constants, padding) live until they are tied to one that leaves."""
        if len(self.dead) < self.couplings.count:
            self.dead = np.pad(self.dead, (0, self.couplings.count - len(self.dead)))
        dies: np.ndarray = self.dead[labels]
        return dies

    def _keep_step(self, op: Op) -> None:
        """While the run repeats the analysed trace, labels that it makes have the numbers of the analysis."""
        if self.awaited is None:
            return
        while self.awaited and self.awaited[-1].name in _IDLE and self.awaited[-1].name != op.name:
            self.awaited.pop()
        want = self.awaited[-1] if self.awaited else None
        if op.name in _IDLE and (want is None or want.name != op.name):
            return
        shapes = self.analysis.traces[0].shapes
        if want is not None and want.name == op.name:
            self.awaited.pop()
            pairs = [(shapes[a], self.trace.shapes[b]) for a, b in zip(want.outs, op.outs, strict=False)]
            alike = all(planned == made or 0 in planned for planned, made in pairs)  # statistics are empty on meta
            if alike and len(want.outs) == len(op.outs):
                return
        self.awaited = None
        self.dead = self.dead[: self.couplings.count]

    def _spread(self) -> None:
        """Let the labels that the run made follow those that they were tied to."""
        for one, two in self.couplings.ties:
            both = self._dies(one) | self._dies(two)
            self.dead[one[both]] = self.dead[two[both]] = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Silence the operands, run, and let the labels follow."""
        kwargs = kwargs or {}
        named = {k: self._ref(v) for k, v in kwargs.items()}
        op = Op(func, tuple(self._ref(a) for a in args), named, (), self.path[-1])
        masks = self._silent(op)
        for at, dim, dead in masks:
            args = tuple(self._masked(a, dim, dead) if i == at else a for i, a in enumerate(args))
        out = convolve(func, args, kwargs)
        op.outs = tuple(self.result(t) for t in self._tensors(out))
        self._keep_step(op)
        before = len(self.couplings.statistics)
        apply_rule(self.couplings, op)
        self._spread()
        if len(self.couplings.statistics) > before:
            out = self._over_kept(op, func, args, kwargs, out)
        self.couplings.ties.clear()
        self.couplings.pins.clear()
        self.couplings.splits.clear()
        return out

    @staticmethod
    def _masked(tensor: Any, dim: int, dead: np.ndarray) -> Any:
        shape = [1] * tensor.dim()
        shape[dim] = len(dead)
        return tensor * torch.from_numpy(~dead).to(tensor.dtype).to(tensor.device).reshape(shape)

    def _silent(self, op: Op) -> list[tuple[int, int, np.ndarray]]:
        """Which argument (by position) is silent along which dimension, and where."""
        kind = op.plain.removeprefix("aten.")
        c = self.couplings
        masks: list[tuple[int, int, np.ndarray]] = []

        def read(at: int, dim: int, *others: tuple[int, int]) -> None:
            """Silence argument `at` along `dim` wherever one of the contracted dimensions is dead."""
            dead = None
            for position, d in ((at, dim), *others):
                c.part(op.args[position].value, d)
                labels = c.labels(op.args[position].value, d)
                if labels is not None:
                    dies = self._dies(labels)
                    dead = dies if dead is None else dead | dies
            if dead is not None and dead.any():
                masks.append((at, dim, dead))

        if kind in ("convolution", "convolution_overrideable", "_convolution"):
            read(1, 0 if op.args[6] else 1)
        elif kind == "torchvision.deform_conv2d":
            read(1, 1)
        elif kind in ("mm", "addmm", "bmm", "baddbmm"):
            left = 1 if kind in ("addmm", "baddbmm") else 0
            batch = 1 if kind in ("bmm", "baddbmm") else 0
            read(left, batch + 1, (left + 1, batch))
        elif kind in ("mv", "dot", "vdot"):
            read(0, int(kind == "mv"), (1, 0))
        elif kind.startswith("_scaled_dot_product"):
            read(0, 3)
        elif kind in ("sum", "nansum"):
            self._silent_sum(op, masks)
        return masks

    def _silent_sum(self, op: Op, masks: list[tuple[int, int, np.ndarray]]) -> None:
        x = op.args[0].value
        dims = arguments(op).get("dim")
        rank = len(self.trace.shapes[x])
        over = range(rank) if not dims else [d % rank for d in ([dims] if isinstance(dims, int) else dims)]
        for dim in over:
            self.couplings.part(x, dim)
            labels = self.couplings.labels(x, dim)
            if labels is not None and self._dies(labels).any():
                masks.append((0, dim, self._dies(labels)))

    def _over_kept(self, op: Op, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        """Run the operator on the kept indices only, and put the result back in place; zeros elsewhere."""
        layouts = {v: self.couplings.layout(v) for v in (*operands(op), *op.outs)}
        self._dies(np.zeros(0, np.int64))  # grow
        sizes = Sizes(self.trace.shapes, layouts, self.dead)

        def small(item: Any, given: Any) -> Any:
            """Keep only the live indices of an argument."""
            if isinstance(given, Ref):
                for dim in range(item.dim()):
                    mask = sizes.alive(given.value, dim)
                    if mask is not None:
                        item = item.index_select(dim, torch.from_numpy(np.flatnonzero(mask)))
            return item

        bound = arguments(op)
        ins = {key: item.value for key, item in bound.items() if isinstance(item, Ref)}
        changed = new_constants(op.name, bound, ins, op.outs, sizes)
        names = [a.name for a in func._schema.arguments]
        slim = [changed.get(names[i], small(a, op.args[i])) for i, a in enumerate(args)]
        named = {k: changed.get(k, small(v, op.kwargs[k])) for k, v in kwargs.items()}
        result = func(*slim, **named)
        wide = []
        for full, kept, value in zip(self._tensors(out), self._tensors(result), op.outs, strict=True):
            placed = torch.zeros_like(full)
            where = [torch.arange(n) for n in full.shape]
            for dim in range(full.dim()):
                mask = sizes.alive(value, dim)
                if mask is not None:
                    where[dim] = torch.from_numpy(np.flatnonzero(mask))
            placed[torch.meshgrid(*where, indexing="ij") if where else ()] = kept
            full.copy_(placed)  # keep the tensor that is numbered
            wide.append(full)
        return out


@contextmanager
def silenced(module: nn.Module, analysis: Analysis, dead: np.ndarray, *, double: bool = False) -> Iterator[None]:
    """While active, calls of `module` compute the masked original."""
    names = {id(t): n for n, t in tensors_of(module).items()}
    mode = Silence(analysis, dead, names)
    with quiet_module(module), module_paths(module, mode), mode, Double() if double else nullcontext():
        yield


class Masked(nn.Module):
    """The masked original as a module, to be evaluated like any other; it shares the original's parameters."""

    def __init__(self, module: nn.Module, analysis: Analysis, dead: np.ndarray) -> None:
        """`dead[label]` is True where the label leaves."""
        super().__init__()
        self._original = [module]  # not registered: switching this module's mode must not switch the original's
        self._analysis, self._dead = analysis, dead

    def forward(self, *inputs: Any) -> Any:
        """Run the original with the dead labels silent."""
        (original,) = self._original
        inputs = fresh(inputs)
        with silenced(original, self._analysis, self._dead):
            set_mode(original, train=False)
            return original(*inputs)


def masked_output(module: nn.Module, example: tuple[Any, ...], analysis: Analysis, dead: np.ndarray) -> list[Tensor]:
    """Outputs of the masked original on `example`, in float64."""
    example = fresh(example)
    with silenced(module, analysis, dead, double=True), _same_draws(example):
        set_mode(module, train=False)
        return tensors_in(module(*example))


def double_output(module: nn.Module, example: tuple[Any, ...]) -> list[Tensor]:
    """Outputs of `module` on `example`, computed in float64."""
    example = fresh(example)
    with quiet_module(module), FastGroups(), Double(), _same_draws(example):
        set_mode(module, train=False)
        return tensors_in(module(*example))


@contextmanager
def _same_draws(example: tuple[Any, ...]) -> Iterator[None]:
    """What draws random numbers in evaluation too draws the same ones each time; nobody else's draws change."""
    used = {t.device.index for t in pytree.tree_leaves(example) if isinstance(t, Tensor) and t.is_cuda}
    with torch.random.fork_rng(devices=sorted(used)):
        for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in used)):
            generator.manual_seed(0)
        yield
