"""Normalisation: affine parameters and running statistics belong to the normalised dimension.

Where the statistics themselves are taken over a labelled dimension (layer norm, group norm), they are taken over what
is kept; the masked reference does the same.
"""

from __future__ import annotations

import numpy as np

from compress.graph.couplings import Couplings, moved
from compress.graph.rules.table import arguments, rule, value
from compress.graph.trace import Op, Ref


def _tie_affine(c: Couplings, labels: np.ndarray | None, *affine: object) -> None:
    """Tie the first of these tensors to the channels, and each further one to the one before it."""
    for item in affine:
        if isinstance(item, Ref):
            own = c.labels(item.value, 0)
            c.tie(own, labels, "scales a fixed dimension")
            labels = own if labels is not None and own is not None else labels


@rule(
    "aten.native_batch_norm",
    "aten.cudnn_batch_norm",
    "aten.miopen_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_with_update",
    "aten._batch_norm_no_update",
    "aten.batch_norm_with_update",
)
def batch_norm(c: Couplings, op: Op) -> None:
    """x (N, C, *), per-channel tensors (C,) -> y (N, C, *)."""
    a = arguments(op)
    x = value(a.get("input", op.args[0]))
    channels = c.labels(x, 1) if len(c.shape(x)) > 1 else None
    _tie_affine(c, channels, a["weight"], a["bias"], a.get("running_mean"), a.get("running_var"))
    if any(1 not in dims for dims, _ in c.layout(x)) and a.get("training", a.get("running_mean") is None):
        c.uses_statistics()
    c.set(op.outs[0], c.layout(x))
    for saved in op.outs[1:]:
        blocks = [((0,), channels)] if channels is not None and c.shape(saved) == channels.shape else []
        c.set(saved, blocks)


@rule("aten.native_layer_norm", "aten._fused_rms_norm", "aten.rms_norm")
def layer_norm(c: Couplings, op: Op) -> None:
    """x (*, D...), weight and bias (D...) -> y like x."""
    a = arguments(op)
    x, rank = value(a["input"]), len(a["normalized_shape"])
    first = len(c.shape(x)) - rank
    for dim in range(first, first + rank):
        c.part(x, dim)
        labels = c.labels(x, dim)
        if labels is not None:
            c.uses_statistics()
        for item in (a["weight"], a.get("bias")):
            if isinstance(item, Ref):
                c.tie(c.labels(item.value, dim - first), labels, "scales a fixed dimension")
    c.set(op.outs[0], c.layout(x))
    beside = [block for block in c.layout(x) if all(d < first for d in block[0])]
    for saved in op.outs[1:]:
        c.set(saved, beside)


@rule("aten.native_group_norm")
def group_norm(c: Couplings, op: Op) -> None:
    """x (N, C, *) in g groups of C/g: whole groups leave, or the same position of every group, whichever are more."""
    a = arguments(op)
    x, groups = value(a["input"]), int(a["group"])
    labels = c.labels(x, 1)
    of_group = None
    if labels is not None and groups > 1:
        rows = labels.reshape(groups, -1)
        whole = groups >= rows.shape[1]
        c.tie(np.broadcast_to(rows[:, :1] if whole else rows[:1], rows.shape), rows)
        of_group = rows[:, 0] if whole else None
    if labels is not None and (groups == 1 or groups < labels.size // groups):
        c.uses_statistics()
    _tie_affine(c, labels, a["weight"], a["bias"])
    c.set(op.outs[0], c.layout(x))
    for saved in op.outs[1:]:
        c.set(saved, [((1,), of_group)] if of_group is not None else [])


@rule("aten._weight_norm_interface")
def weight_norm(c: Couplings, op: Op) -> None:
    """v like w, g of size 1 but along `dim` -> w; the norm over the other dimensions takes what is kept."""
    a = arguments(op)
    v, g, dim = value(a["v"]), value(a["g"]), int(a["dim"])
    c.tie(c.labels(v, dim), c.labels(g, dim))
    c.uses_statistics()
    c.set(op.outs[0], moved(c.layout(v), range(len(c.shape(v)))))
    c.set(op.outs[1], c.layout(g))
