"""Where a layer's result is added to something else: a residual stream.

What a layer adds can also make up for what the stream has lost before. So a layer whose result comes to an addition,
with nothing but batch norms and reshapes in between, is followed to it: what is wanted of it there is the original's
sum, less what the stream of the cut network brings (as for the last layer of a branch in He et al., arXiv:1707.06168).
Tensors are followed by identity while the network runs, so that any code and any graph can be followed alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from compress.graph.modules import quiet_module, set_mode
from compress.graph.watch import Beside, Call, Watch

_STEPS = {
    "aten.native_batch_norm",
    "aten.cudnn_batch_norm",
    "aten.miopen_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_no_update",
    "aten._batch_norm_with_update",
    "aten.view",
    "aten._unsafe_view",
    "aten.reshape",
    "aten.clone",
    "aten.alias",
    "aten.detach",
}
_SUMS = {"aten.add", "aten.add_"}


@dataclass(frozen=True, slots=True)
class Path:
    """A layer's result and what it has been through since: `calls` is the layer itself, then one call a step.

    `order` counts the layers as they run; `tensor` is what the last step gave.
    """

    name: str
    use: int
    order: int
    result: Tensor
    tensor: Tensor
    calls: tuple[Call, ...]

    def through(self, y: Tensor) -> Tensor:
        """What becomes of a result y on the way to the addition."""
        for call in self.calls[1:]:
            y = _first(call.func(y, *call.args[1:], **call.kwargs))
        return y


@dataclass(frozen=True, slots=True)
class Join:
    """The addition at the end of a path: `other` is what it is added to, `total` the sum, which may be written to."""

    path: Path
    other: Tensor
    total: Tensor

    def shaped(self, y: Tensor) -> Tensor | None:
        """The sum in the shape of the layer's result y (rows as there); None where it is another arrangement."""
        if self.total.shape == y.shape:
            return self.total
        if y.dim() == 2 and self.total.shape[-1] == y.shape[-1] and self.total.numel() == y.numel():
            return self.total.reshape(y.shape)
        return None

    def again(self) -> None:
        """Run the layer and its path once more, since its weights have changed, and correct the sum in place."""
        self.total.copy_(self.other + self.path.through(_first(self.path.calls[0]())))


class Streams(Watch):
    """Watches layers as `Watch` does, and calls `joined` at every addition that a watched layer's result comes to."""

    def __init__(self, tensors: Mapping[str, Tensor], beside: Beside, joined: Callable[[Join], None]) -> None:
        """`tensors` are the weights of layers by name."""
        super().__init__(tensors, beside)
        self.joined = joined
        self.paths: dict[int, Path] = {}  # by the identity of the newest tensor, which the path keeps alive

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator as `Watch` does, and follow what it makes."""
        call, kind = Call(func, args, kwargs or {}), str(func.overloadpacket)
        mine = [self.paths.pop(id(a)) for a in args if isinstance(a, Tensor) and id(a) in self.paths]
        other = self._other(call, kind, mine)
        found = self.read_by(call)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if found is not None and isinstance(result, Tensor):
            name = found[0]
            self._keep(Path(name, self.uses[name] - 1, sum(self.uses.values()), result, result, (call,)))
        elif kind in _STEPS and mine and args[0] is mine[0].tensor:
            path = mine[0]
            self._keep(replace(path, tensor=_first(result), calls=(*path.calls, call)))
        elif other is not None:
            self.joined(Join(mine[-1], other, result))
        return result

    def _keep(self, path: Path) -> None:
        self.paths[id(path.tensor)] = path

    @staticmethod
    def _other(call: Call, kind: str, mine: list[Path]) -> Tensor | None:
        """What the newest path is about to be added to."""
        if kind not in _SUMS or not mine or call.kwargs.get("alpha", 1) != 1:
            return None
        one, two = call.args[:2]
        if not isinstance(one, Tensor) or not isinstance(two, Tensor) or one.shape != two.shape:
            return None
        mine.sort(key=lambda path: path.order)
        other = two if one is mine[-1].tensor else one
        return other.clone() if kind == "aten.add_" and other is one else other


def followed(
    module: nn.Module, batch: Tensor, tensors: Mapping[str, Tensor], beside: Beside, joined: Callable[[Join], None]
) -> None:
    """Run `module` once in evaluation, without gradients; see `Streams`."""
    given = batch.clone()
    with quiet_module(module), torch.no_grad():
        set_mode(module, train=False)
        with Streams(tensors, beside, joined):
            module(given)


def _first(result: Any) -> Tensor:
    one: Tensor = result if isinstance(result, Tensor) else result[0]
    return one
