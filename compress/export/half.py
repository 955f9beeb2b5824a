"""float16 inside, float32 outside: half the bytes, for runtimes and devices that compute in it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class Half(nn.Module):
    """A copy of a network in float16 that takes and returns float32; the network itself is left as it is."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = copy.deepcopy(module).half()
        for part in self.modules():
            # Modules from torch.export refuse eval().
            part.training = False

    def forward(self, *inputs: Tensor) -> Any:
        """Run on float32 inputs; integer inputs and outputs pass as they are."""
        outputs = self.inner(*(x.half() if x.dtype == torch.float32 else x for x in inputs))
        return pytree.tree_map(
            lambda y: y.float() if isinstance(y, Tensor) and y.dtype == torch.float16 else y, outputs
        )


def half_onnx(proto: Any) -> Any:
    """Return an onnx ModelProto in float16 whose inputs and outputs stay float32.

    Numbers too large for float16 are set to its largest, too small ones to its smallest, as onnxruntime's converter
    does.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(proto, keep_io_types=True, disable_shape_infer=True)
