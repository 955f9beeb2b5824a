"""Stand beside every convolution, linear layer and batch norm of a running network, whatever its code looks like.

A dispatch mode is asked by PyTorch for every operator, so that a user's own module and a rewritten graph are watched
alike; which parameter an operator reads is told by the address of its first element, and by its shape: what reads a
part of one, or another arrangement, reads no parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from compress.graph.modules import fresh, quiet_module, set_mode

# Operator -> the positions of what it reads and of the tensor that names it.
_PLACES = {
    "aten.convolution": (0, 1),
    "aten._convolution": (0, 1),
    "aten.mm": (0, 1),
    "aten.addmm": (1, 2),
    "aten.native_batch_norm": (0, 3),
    "aten.cudnn_batch_norm": (0, 3),
    "aten.miopen_batch_norm": (0, 3),
    "aten._native_batch_norm_legit": (0, 3),
    "aten._native_batch_norm_legit_no_training": (0, 3),
    "aten._batch_norm_no_update": (0, 3),
    "aten._batch_norm_with_update": (0, 3),
}


@dataclass(frozen=True, slots=True)
class Call:
    """An operator with its operands; calling it runs it."""

    func: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Any:
        """Run the operator."""
        return self.func(*self.args, **self.kwargs)


class Names:
    """Which of some tensors another one is, as it is or as a matrix turned."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """`tensors` are parameters and buffers by name."""
        self.known = {t.data_ptr(): (name, t.shape) for name, t in tensors.items() if t.numel()}

    def of(self, tensor: Tensor) -> str | None:
        """Its name; None for others, and for a part of one."""
        name, shape = self.known.get(tensor.data_ptr(), (None, None))
        if shape is None or tensor.shape == shape or (len(shape) == 2 and tensor.shape == shape[::-1]):
            return name
        return None


def weight_of(call: Call) -> Any:
    """The tensor that names what a watched operator reads: a layer's weight, or a batch norm's running mean."""
    return _argument(call, _PLACES[str(call.func.overloadpacket)][1])


def _argument(call: Call, at: int) -> Any:
    return call.args[at] if at < len(call.args) else None


Beside = Callable[[str, int, Tensor, Call], Any]


class Watch(TorchDispatchMode):
    """Calls `beside(name, use, input, run)` in place of an operator that reads a parameter, for the `use`th time."""

    def __init__(self, tensors: Mapping[str, Tensor], beside: Beside) -> None:
        """`tensors` are the parameters and buffers by name; operators that read none of them run unseen."""
        super().__init__()
        self.names = Names(tensors)
        self.uses: dict[str, int] = {}
        self.beside = beside

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let `beside` run the operator, or run it."""
        call = Call(func, args, kwargs or {})
        found = self.read_by(call)
        if found is None:
            return call()
        name, reads = found
        use = self.uses.get(name, 0)
        self.uses[name] = use + 1
        return self.beside(name, use, reads, call)

    def read_by(self, call: Call) -> tuple[str, Tensor] | None:
        """The name of the parameter that the operator reads beside a tensor, and that tensor; None for others."""
        places = _PLACES.get(str(call.func.overloadpacket))
        if places is None:
            return None
        reads, named = _argument(call, places[0]), weight_of(call)
        name = self.names.of(named) if isinstance(named, Tensor) else None
        return (name, reads) if name is not None and isinstance(reads, Tensor) else None


def watched(module: nn.Module, inputs: tuple[Tensor, ...], tensors: Mapping[str, Tensor], beside: Beside) -> Any:
    """Run `module` once in evaluation with `beside` at whatever reads one of the `tensors`; return its output.

    Gradients are off and the module is afterwards as it was, apart from what `beside` changes.
    """
    inputs = fresh(inputs)
    with quiet_module(module):
        set_mode(module, train=False)
        with Watch(tensors, beside):
            return module(*inputs)
