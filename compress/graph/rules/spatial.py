"""Pooling, resizing, padding, and operators that trade channels for pixels."""

from __future__ import annotations

import numpy as np

from compress.graph.couplings import Block, Couplings, operands, refs
from compress.graph.rules.table import arguments, rule, value
from compress.graph.trace import Op


def _keep_channels(c: Couplings, x: int, spatial: int) -> None:
    rank = len(c.shape(x))
    for d in range(rank - spatial, rank):
        c.fix(x, d, "spatial extent")


def _spatial(count: int, *names: str) -> None:
    @rule(*(f"aten.{name}" for name in names))
    def carry(c: Couplings, op: Op) -> None:
        """Work inside each channel's plane; channels pass through."""
        x = operands(op)[0]
        _keep_channels(c, x, count)
        for other in operands(op)[1:]:
            c.fix_all(other, f"read by {op.name}")
        for out in op.outs:
            c.set(out, c.layout(x) if len(c.shape(out)) == len(c.shape(x)) else [])


# fmt: off
_spatial(
    1, "max_pool1d", "max_pool1d_with_indices", "avg_pool1d", "adaptive_avg_pool1d", "adaptive_max_pool1d",
    "upsample_nearest1d", "upsample_linear1d", "_upsample_nearest_exact1d", "reflection_pad1d", "replication_pad1d",
)
_spatial(
    2, "max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool2d",
    "adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
    "_upsample_nearest_exact2d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "reflection_pad2d",
    "replication_pad2d", "mkldnn_max_pool2d", "lp_pool2d",
)
_spatial(
    3, "max_pool3d", "max_pool3d_with_indices", "avg_pool3d", "_adaptive_avg_pool3d", "adaptive_avg_pool3d",
    "adaptive_max_pool3d", "upsample_nearest3d", "upsample_trilinear3d", "_upsample_nearest_exact3d",
    "reflection_pad3d", "replication_pad3d",
)
# fmt: on


@rule("aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sampler(c: Couplings, op: Op) -> None:
    """x (N, C, *spatial) at the places of a grid (N, *places, dimensions); heads folded into both N leave together."""
    x, grid = operands(op)[:2]
    _keep_channels(c, x, c.shape(grid)[-1])
    for d in range(1, len(c.shape(grid))):
        c.fix(grid, d, "places of a grid")
    if c.block(x, 0) or c.block(grid, 0):
        c.tie(c.labels(x, 0), c.labels(grid, 0))
    c.set(op.outs[0], c.layout(x))


@rule("aten.fractional_max_pool2d", "aten.fractional_max_pool3d")
def fractional_pool(c: Couplings, op: Op) -> None:
    """x (N, C, *spatial), and samples (N, C, spatial dimensions), which place every channel's own windows."""
    x, samples = operands(op)[:2]
    _keep_channels(c, x, c.shape(samples)[2])
    c.tie(c.labels(x, 1), c.labels(samples, 1), "every channel has windows of its own")
    for d in (0, 2):
        c.fix(samples, d, "places windows")
    for out in op.outs:
        c.set(out, c.layout(x))


@rule("aten.constant_pad_nd", "aten.pad")
def pad(c: Couplings, op: Op) -> None:
    """Constant entries before and after; they are all alike, so padded channels may leave."""
    x, out = operands(op)[0], op.outs[0]
    given, rank = list(op.args[1]), len(c.shape(x))
    blocks: list[Block] = []
    padded = {rank - 1 - i // 2: (given[i], given[i + 1]) for i in range(0, len(given), 2)}
    padded = {d: (before, after) for d, (before, after) in padded.items() if before or after}
    for d, (before, after) in padded.items():
        c.part(x, d)
        labels = c.labels(x, d)
        if labels is None:
            continue
        if before < 0 or after < 0:
            c.pin(labels, "cropped by a negative pad")
            continue
        blocks.append(((d,), np.concatenate([c.fresh(before), labels, c.fresh(after)])))
    blocks += [(dims, array) for dims, array in c.layout(x) if not any(d in padded for d in dims)]
    c.set(out, blocks)


@rule("aten.pixel_shuffle")
def pixel_shuffle(c: Couplings, op: Op) -> None:
    """(*, C r r, H, W) -> (*, C, H r, W r): the r r channels of one output channel are tied."""
    x, out = operands(op)[0], op.outs[0]
    _keep_channels(c, x, 2)
    at = len(c.shape(x)) - 3
    labels = c.labels(x, at)
    blocks = [block for block in c.layout(x) if at not in block[0]]
    if labels is not None:
        rows = labels.reshape(c.shape(out)[at], -1)
        c.tie(np.broadcast_to(rows[:, :1], rows.shape), rows)
        blocks.append(((at,), rows[:, 0]))
    c.set(out, blocks)


@rule("aten.pixel_unshuffle")
def pixel_unshuffle(c: Couplings, op: Op) -> None:
    """(*, C, H r, W r) -> (*, C r r, H, W): each channel's labels repeat."""
    x, out = operands(op)[0], op.outs[0]
    _keep_channels(c, x, 2)
    at = len(c.shape(x)) - 3
    blocks: list[Block] = []
    for dims, array in c.layout(x):
        repeats = c.shape(out)[at] // c.shape(x)[at] if dims == (at,) else 1
        blocks.append((dims, np.repeat(array, repeats)))
    c.set(out, blocks)


@rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def channel_shuffle(c: Couplings, op: Op) -> None:
    """(N, g k, *) -> (N, k g, *): the same position of every group is tied."""
    x, groups = operands(op)[0], int(op.args[1])
    labels = c.labels(x, 1)
    blocks = [block for block in c.layout(x) if 1 not in block[0]]
    if labels is not None:
        rows = labels.reshape(groups, -1)
        c.tie(np.broadcast_to(rows[:1], rows.shape), rows)
        blocks.append(((1,), rows.T.reshape(-1)))
    c.set(op.outs[0], blocks)


@rule("aten.im2col")
def im2col(c: Couplings, op: Op) -> None:
    """(N, C, H, W) -> (N, C kh kw, L): each channel's labels repeat."""
    x, out = operands(op)[0], op.outs[0]
    _keep_channels(c, x, 2)
    labels = c.labels(x, 1)
    repeats = c.shape(out)[1] // c.shape(x)[1]
    c.set(out, [((1,), np.repeat(labels, repeats))] if labels is not None else [])


@rule("aten.col2im")
def col2im(c: Couplings, op: Op) -> None:
    """(N, C kh kw, L) -> (N, C, H, W): the kh kw entries of a channel are tied."""
    a = arguments(op)
    x, out = value(a["self"]), op.outs[0]
    c.fix(x, len(c.shape(x)) - 1, "spatial extent")
    labels = c.labels(x, 1)
    if labels is None:
        c.set(out, [])
        return
    rows = labels.reshape(c.shape(out)[1], -1)
    c.tie(np.broadcast_to(rows[:, :1], rows.shape), rows)
    c.set(out, [((1,), rows[:, 0])])


@rule("aten.affine_grid_generator")
def affine_grid(c: Couplings, op: Op) -> None:
    """A sampling grid: nothing labelled."""
    for v in refs(op.args):
        c.fix_all(v, "made into a sampling grid")
    c.set(op.outs[0], [])


@rule("torchvision.roi_align", "torchvision.roi_pool")
def regions(c: Couplings, op: Op) -> None:
    """x (N, C, H, W) and regions (K, 5) -> (K, C, h, w): channels pass through, what places the regions stays."""
    x, out = operands(op)[0], op.outs[0]
    for other in operands(op)[1:]:
        c.fix_all(other, "its values place regions")
    for dim in (0, 2, 3):
        c.fix(x, dim, "spatial extent")
    labels = c.labels(x, 1)
    c.set(out, [((1,), labels)] if labels is not None else [])
    for other_out in op.outs[1:]:
        c.set(other_out, [])


@rule("torchvision.ps_roi_align", "torchvision.ps_roi_pool")
def placed_regions(c: Couplings, op: Op) -> None:
    """Every place in a region reads channels of its own: all of them stay."""
    for v in operands(op):
        c.fix_all(v, "every place in a region reads its own channels")
    for out in op.outs:
        c.set(out, [])


@rule("torchvision.nms")
def suppression(c: Couplings, op: Op) -> None:
    """Boxes (K, 4) and scores (K,) are compared by value -> numbers of boxes."""
    for v in operands(op):
        c.fix_all(v, "compared by value to suppress overlapping boxes")
    c.set(op.outs[0], [])
