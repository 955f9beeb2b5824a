"""Operators that sum products over a dimension: convolution, matrix products, attention.

The contracted dimension of one operand is tied to that of the other; what is not contracted is carried to the output.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compress.graph.couplings import Couplings
from compress.graph.rules.table import arguments, rule, value
from compress.graph.trace import Op


@rule("aten.convolution", "aten.convolution_overrideable", "aten._convolution")
def convolution(c: Couplings, op: Op) -> None:
    """x (N, I, *), w (O, I/g, *) or transposed (I, O/g, *), b (O,) -> y (N, O, *).

    Where the kernel has extent 1 and steps by 1 without padding, nothing slides: that dimension passes through, as the
    batch does.
    """
    a = arguments(op)
    x, w, y, groups = value(a["input"]), value(a["weight"]), op.outs[0], int(a["groups"])
    bias = None if a["bias"] is None else value(a["bias"])
    for dim in range(2, len(c.shape(w))):
        c.extent(w, dim)
    through = {0} | {d for d in range(2, len(c.shape(x))) if _stands_still(c.shape(w), a, d)}
    for dim in range(2, len(c.shape(x))):
        if dim not in through:
            c.fix(x, dim, "extent that a convolution slides over")
    if (found := c.block(x, 1)) is not None and 0 in found[0]:
        c.part(x, 1)  # heads in the batch, their width as channels
    into, out = (0, 1) if a["transposed"] else (1, 0)
    reads, makes = c.labels(w, into), c.labels(w, out)
    if groups == 1:
        c.tie(c.labels(x, 1), reads, "read by a convolution from a fixed dimension")
        _weight_reads(c, w, reads, makes)
    else:
        makes = _grouped(c, x, w, reads, makes, groups, transposed=bool(a["transposed"]))
    if bias is not None:
        c.tie(c.labels(bias, 0), makes)
    carried = [block for block in c.layout(x) if set(block[0]) <= through]
    c.set(y, [((1,), makes), *carried] if makes is not None else carried)


@rule("torchvision.deform_conv2d")
def deformed_convolution(c: Couplings, op: Op) -> None:
    """x (N, I, H, W), w (O, I/g, *), offsets and mask per place, b (O,) -> y (N, O, *); offsets stay."""
    a = arguments(op)
    x, w, y, groups = value(a["input"]), value(a["weight"]), op.outs[0], int(a["groups"])
    for item in (a["offset"], a["mask"]):
        c.fix_all(value(item), "its values place a kernel")
    for dim in (2, 3):
        c.extent(w, dim)
        c.fix(x, dim, "extent that a convolution slides over")
    c.fix(x, 0, "batch")
    entering, reads, makes = c.labels(x, 1), c.labels(w, 1), c.labels(w, 0)
    if int(a["offset_groups"]) > 1:
        c.pin(entering, "runs of channels have offsets of their own")
    if groups == 1:
        c.tie(entering, reads, "read by a convolution from a fixed dimension")
        _weight_reads(c, w, reads, makes)
    else:
        makes = _grouped(c, x, w, reads, makes, groups, transposed=False)
    c.tie(c.labels(value(a["bias"]), 0), makes)
    c.set(y, [((1,), makes)] if makes is not None else [])


def _stands_still(kernel: tuple[int, ...], a: dict[str, Any], dim: int) -> bool:
    """Whether the kernel covers one index of `dim` at a time, every index once."""

    def given(key: str) -> int:
        value = a[key]
        return int(value[min(dim - 2, len(value) - 1)])

    return kernel[dim] == 1 and given("stride") == 1 and given("padding") == 0 and given("output_padding") == 0


def _grouped(
    c: Couplings, x: int, w: int, reads: np.ndarray | None, makes: np.ndarray | None, groups: int, *, transposed: bool
) -> np.ndarray | None:
    """Tie a grouped convolution's channels; return the output's labels.

    Depthwise: input channel i and its outputs are one. Otherwise either whole groups leave (more than channels in a
    group), or the same position leaves every group.
    """
    c_in = c.shape(x)[1]
    each_in = c_in // groups
    each_out = c.shape(w)[1] if transposed else c.shape(w)[0] // groups
    entering = c.labels(x, 1)
    # A transposed kernel is stored (I, O/g): its first dimension runs over the inputs.
    full, small = (reads, makes) if transposed else (makes, reads)
    if each_in == 1 and not (transposed and each_out > 1):
        c.tie(None if entering is None else np.repeat(entering, each_out), full, "depthwise on a fixed dimension")
        return full
    each_full = each_in if transposed else each_out
    if groups >= each_in:  # whole groups
        c.pin(small, "position inside a group, where whole groups leave")
        for labels, each in ((entering, each_in), (full, each_full)):
            if labels is not None:
                rows = labels.reshape(groups, each)
                c.tie(np.repeat(rows[:, :1], each, axis=1), rows)
        c.tie(
            None if entering is None else entering.reshape(groups, each_in)[:, 0],
            None if full is None else full.reshape(groups, each_full)[:, 0],
            "grouped convolution on a fixed dimension",
        )
        if not transposed:
            return full
        return None if full is None else np.repeat(full.reshape(groups, each_full)[:, 0], each_out)
    for labels, each in ((entering, each_in), (full, each_full)):
        if labels is not None:
            rows = labels.reshape(groups, each)
            c.tie(np.repeat(rows[:1], groups, axis=0), rows)
    if transposed:
        c.tie(entering, full, "read by a convolution from a fixed dimension")
        _weight_reads(c, w, full)
        return None if small is None else np.tile(small, groups)
    c.tie(
        None if entering is None else entering.reshape(groups, each_in)[0],
        small,
        "grouped convolution on a fixed dimension",
    )
    _weight_reads(c, w, small)
    return full


def _weight_reads(c: Couplings, weight: int, labels: np.ndarray | None, makes: np.ndarray | None = None) -> None:
    if weight in c.const:
        c.consumes(labels, makes)


def _is_made(c: Couplings, labels: np.ndarray | None) -> bool:
    """Whether a weight has made these channels."""
    return labels is not None and any(bool(np.isin(labels.flat[:1], makes).all()) for _, makes in c.maps)


def product(c: Couplings, left: int, right: int, out: int, *, batch: int) -> None:
    """left (*batch, n, k) @ right (*batch, k, m) -> out (*batch, n, m)."""
    n, k_left, k_right, m = batch, batch + 1, batch, batch + 1
    c.part(left, k_left)
    c.part(left, n)
    c.part(right, k_right)
    c.part(right, m)
    one, two = c.labels(left, k_left), c.labels(right, k_right)
    c.tie(one, two, "multiplied with a fixed dimension")
    for operand, labels, other, partner in ((left, one, n, right), (right, two, m, left)):
        if not (partner in c.const and _is_made(c, labels)):  # queries from a table are no weight, though constant
            _weight_reads(c, operand, labels, c.labels(operand, other) if operand in c.const else None)
    blocks = []
    for d in range(batch):
        a, b = c.labels(left, d), c.labels(right, d)
        if c.shape(left)[d] == c.shape(right)[d]:
            c.tie(a, b, "multiplied with a fixed dimension")
        carried = a if a is not None else b
        if carried is not None and (a is not None) == (b is not None):
            blocks.append(((d,), carried))
    for operand, source, target in ((left, n, n), (right, m, m)):
        carried = c.labels(operand, source)
        if carried is not None:
            blocks.append(((target,), carried))
    c.set(out, blocks)


@rule("aten.mm")
def mm(c: Couplings, op: Op) -> None:
    """x (n, k) @ w (k, m) -> y (n, m)."""
    a = arguments(op)
    product(c, value(a["self"]), value(a["mat2"]), op.outs[0], batch=0)


@rule("aten.bmm")
def bmm(c: Couplings, op: Op) -> None:
    """x (b, n, k) @ w (b, k, m) -> y (b, n, m)."""
    a = arguments(op)
    product(c, value(a["self"]), value(a["mat2"]), op.outs[0], batch=1)


@rule("aten.addmm", "aten.baddbmm")
def addmm(c: Couplings, op: Op) -> None:
    """bias + x @ w, the bias broadcast over the leading dimensions."""
    a = arguments(op)
    out = op.outs[0]
    if "mat1" in a:
        product(c, value(a["mat1"]), value(a["mat2"]), out, batch=0)
    else:
        product(c, value(a["batch1"]), value(a["batch2"]), out, batch=1)
    bias = value(a["self"])
    lead = len(c.shape(out)) - len(c.shape(bias))
    for dim, size in enumerate(c.shape(bias)):
        if size > 1:
            c.tie(c.labels(bias, dim), c.labels(out, dim + lead))


@rule("aten.mv", "aten.dot", "aten.vdot")
def mv(c: Couplings, op: Op) -> None:
    """A (n, k) @ v (k,) -> y (n,), and v . v."""
    left, right = (value(item) for item in op.args[:2])
    last = len(c.shape(left)) - 1
    c.tie(c.labels(left, last), c.labels(right, 0), "multiplied with a fixed dimension")
    carried = c.labels(left, 0) if last == 1 else None
    c.set(op.outs[0], [((0,), carried)] if carried is not None else [])


@rule(
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._scaled_dot_product_fused_attention_overrideable",
)
def attention(c: Couplings, op: Op) -> None:
    """q (N, H, L, E), k (N, H, S, E), v (N, H, S, F) -> y (N, H, L, F); k and v may have fewer heads."""
    a = arguments(op)
    q, k, v = value(a["query"]), value(a["key"]), value(a["value"])
    for item in (q, k, v):
        c.part(item, 3)
        c.fix(item, 2, "token of attention")
    c.tie(c.labels(q, 3), c.labels(k, 3), "multiplied with a fixed dimension")
    heads = c.labels(q, 1)
    for item in (k, v):
        _read_heads(c, heads, item, c.shape(q)[1] // c.shape(item)[1])
    if (bias := a.get("attn_mask", a.get("attn_bias"))) is not None:
        _attention_bias(c, value(bias), heads)
    width = c.labels(v, 3)
    blocks = [((1,), heads)] if heads is not None else []
    c.set(op.outs[0], blocks + ([((3,), width)] if width is not None else []))
    for other_out in op.outs[1:]:
        c.set(other_out, [])


def _read_heads(c: Couplings, heads: np.ndarray | None, item: int, repeat: int) -> None:
    """Heads of queries and of what they read, `repeat` queries each.

    A head leaves with its queries; where it has more of them than there are heads, the same query leaves every head.
    """
    count, other = c.shape(item)[1], c.labels(item, 1)
    if heads is not None and repeat > count:
        c.pin(other, "a head that many queries share")
        rows = heads.reshape(count, repeat)
        c.tie(np.broadcast_to(rows[:1], rows.shape), rows)
    else:
        c.tie(heads, None if other is None else np.repeat(other, repeat), "attention over fixed heads")


def _attention_bias(c: Couplings, bias: int, heads: np.ndarray | None) -> None:
    """A bias (..., H or 1, L, S) added to the scores."""
    rank = len(c.shape(bias))
    for dim in (rank - 1, rank - 2):
        c.fix(bias, dim, "token of attention")
    if rank >= 3 and c.shape(bias)[rank - 3] > 1:
        c.tie(heads, c.labels(bias, rank - 3), "attention bias over fixed heads")
