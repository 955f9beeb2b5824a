"""Channels chosen one by one: by positions that are known, with a step, back to front, by regions of an image."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor, nn

from tests.zoo.case import Case, case
from tests.zoo.harness import Net

IMAGES = (torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(5)),)


def _chosen(run: object, order: list[int], inner: int, *, buffer: bool = True) -> Net:
    net = Net(run, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(inner, 4, 1), fc=nn.Linear(4, 5))  # type: ignore[arg-type]
    if buffer:
        net.register_buffer("order", torch.tensor(order))
    else:
        net.order = torch.tensor(order)
    return net


def _by_order(n: Net, x: Tensor) -> Tensor:
    return n.fc(n.b(n.a(x)[:, n.order]).mean((2, 3)))  # type: ignore[no-any-return]


@case
def chosen_by_a_buffer() -> Case:
    """Entry 1 of the buffer takes channel 4, which leaves with it; channel 5 is taken by none; 0 and 7 go twice."""
    net = _chosen(_by_order, [7, 4, 0, 2, 7, 1, 0, 6, 3], 9)
    together = (
        "a>4 order:0=1 b<1", "a>7 order:0=0,4 b<0,4", "a>0 order:0=2,6 b<2,6", "a>3 order:0=8 b<8", "b>3 fc<3",
    )  # fmt: skip
    return Case(net, IMAGES, together)


@case
def chosen_by_a_plain_tensor() -> Case:
    """Positions that are no buffer are counted anew too."""
    return Case(_chosen(_by_order, [5, 4, 3, 2], 4, buffer=False), IMAGES, ("a>4 b<1", "a>2 b<3"))


@case
def chosen_by_index_select() -> Case:
    """The same by index_select."""
    net = _chosen(lambda n, x: n.fc(n.b(n.a(x).index_select(1, n.order)).mean((2, 3))), [5, 1, 3], 3)
    return Case(net, IMAGES, ("a>1 order:0=1 b<1",))


@case
def chosen_by_a_list() -> Case:
    """Positions written into the code are out of reach: what they choose stays."""
    net = Net(lambda n, x: n.fc(n.b(n.a(x)[:, [6, 0, 3]]).mean((2, 3))),
              a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(3, 4, 1), fc=nn.Linear(4, 5))  # fmt: skip
    return Case(net, IMAGES, ("b>3 fc<3",), {"a>6": "indexed by a tensor"})


@case
def chosen_twice_by_one_buffer() -> Case:
    """Two layers of eight channels chosen by the same positions lose the same channels."""

    def run(n: Net, x: Tensor) -> Tensor:
        out: Tensor = n.fc((n.b(n.a(x)[:, n.order]) + n.b(n.c(x)[:, n.order])).mean((2, 3)))
        return out

    net = Net(run, a=nn.Conv2d(3, 8, 3), c=nn.Conv2d(3, 8, 3), b=nn.Conv2d(3, 4, 1), fc=nn.Linear(4, 5))
    net.register_buffer("order", torch.tensor([6, 0, 3]))
    return Case(net, IMAGES, ("a>0 c>0 order:0=1 b<1",))


@case
def chosen_by_what_is_computed_with() -> Case:
    """A tensor that is added to something is not only positions: what it chooses stays."""
    net = _chosen(lambda n, x: n.fc(n.b(n.a(x)[:, n.order]).mean((2, 3))) + n.order.sum(), [6, 0, 3], 3)
    return Case(net, IMAGES, (), {"a>0": "computes with"})


@case
def every_second_channel() -> Case:
    """Slices with a step: runs of two leave whole."""

    def run(n: Net, x: Tensor) -> Tensor:
        y = n.a(x)
        out: Tensor = n.fc((n.b(y[:, ::2]) * n.c(y[:, 1::2])).mean((2, 3)))
        return out

    net = Net(run, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(4, 4, 1), c=nn.Conv2d(4, 4, 1), fc=nn.Linear(4, 5))
    return Case(net, IMAGES, ("a>2-3 b<1 c<1", "b>3 c>3 fc<3"))


@case
def back_to_front() -> Case:
    """Flipped channels leave from the other end."""
    net = Net(lambda n, x: n.fc(n.b(n.a(x).flip(1)).mean((2, 3))),
              a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 4, 1), fc=nn.Linear(4, 5))  # fmt: skip
    return Case(net, IMAGES, ("a>1 b<6",))


def _regions(n: Net, x: Tensor) -> Tensor:
    boxes = x.new_tensor([[0, 0, 0, 3, 3], [1, 1, 1, 3.5, 3]])
    pooled = torchvision.ops.roi_align(n.a(x), boxes, (2, 2), 1.0)
    return n.fc(n.b(pooled).flatten(1))  # type: ignore[no-any-return]


@case
def regions_of_interest() -> Case:
    """Channels pass through regions, and through the flattening after them."""
    net = Net(_regions, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 4, 1), fc=nn.Linear(16, 5))
    return Case(net, IMAGES, ("a>3 b<3", "b>1 fc<4-7"), exports=False)


@case
def deformed_kernel() -> Case:
    """A kernel whose places are computed: its channels leave, those that place it stay."""
    layer = torchvision.ops.DeformConv2d(8, 4, 3, padding=1)
    net = Net(lambda n, x: n.fc(n.d(y := n.a(x), n.places(y)).mean((2, 3))),
              a=nn.Conv2d(3, 8, 3), places=nn.Conv2d(8, 18, 3, 1, 1), d=layer, fc=nn.Linear(4, 5))  # fmt: skip
    return Case(net, IMAGES, ("a>3 places<3 d.weight:1=3", "d>1 fc<1"), {"places>2": "place"}, exports=False)
