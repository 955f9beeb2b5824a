"""Normalisations, gates and reductions, each with its answer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.case import Case, case
from tests.zoo.harness import Net
from tests.zoo.tricky import IMAGE, _head, _pooled


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose kernels are standardised before use."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Standardise over everything but the outputs, then convolve."""
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), correction=0, keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


class HandMadeRMSNorm(nn.Module):
    """Root mean square norm written out."""

    def __init__(self, width: int) -> None:
        """One scale a channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def _normed(norm: nn.Module, width: int = 8) -> Net:
    return Net(
        lambda n, x: _pooled(n, n.b(n.norm(n.a(x)).relu())),
        a=nn.Conv2d(3, width, 3), norm=norm, b=nn.Conv2d(width, 4, 1), fc=_head(4),
    )  # fmt: skip


def _normed_last(norm: nn.Module) -> Net:
    return Net(
        lambda n, x: n.fc(n.b(n.norm(n.a(x.flatten(2).mT)).relu()).mean(1)),
        a=nn.Linear(3, 8), norm=norm, b=nn.Linear(8, 4), fc=_head(4),
    )  # fmt: skip


@case
def group_norm_of_one() -> Case:
    """One group: statistics over what is kept."""
    return Case(_normed(nn.GroupNorm(1, 8)), IMAGE, ("a>3 norm>3 b<3",))


@case
def group_norm_whole_groups() -> Case:
    """Many groups: a whole group leaves, and its statistics with it."""
    return Case(_normed(nn.GroupNorm(4, 8)), IMAGE, ("a>2,3 norm>2,3 b<2,3",))


@case
def group_norm_positions() -> Case:
    """Two large groups: the same position leaves both."""
    return Case(_normed(nn.GroupNorm(2, 8)), IMAGE, ("a>2,6 norm>2,6 b<2,6",))


@case
def group_norm_without_affine() -> Case:
    """A group norm that owns no parameter still has to know its groups."""
    return Case(_normed(nn.GroupNorm(4, 8, affine=False)), IMAGE, ("a>2,3 b<2,3",))


@case
def instance_norm() -> Case:
    """Each channel has its own statistics."""
    return Case(_normed(nn.InstanceNorm2d(8, affine=True)), IMAGE, ("a>3 norm>3 b<3",))


@case
def instance_norm_running() -> Case:
    """Running statistics leave with the channel."""
    return Case(_normed(nn.InstanceNorm2d(8, affine=True, track_running_stats=True)), IMAGE, ("a>3 norm>3 b<3",))


@case
def batch_norm_without_affine() -> Case:
    """Only running statistics to slice."""
    return Case(_normed(nn.BatchNorm2d(8, affine=False)), IMAGE, ("a>3 norm>3 b<3",))


@case
def layer_norm() -> Case:
    """Statistics over the kept channels."""
    return Case(_normed_last(nn.LayerNorm(8)), IMAGE, ("a>3 norm>3 b<3",))


@case
def rms_norm() -> Case:
    """PyTorch's own root mean square norm."""
    return Case(_normed_last(nn.RMSNorm(8)), IMAGE, ("a>3 norm>3 b<3",))


@case
def hand_made_rms_norm() -> Case:
    """The same norm from elementary operators."""
    return Case(_normed_last(HandMadeRMSNorm(8)), IMAGE, ("a>3 norm>3 b<3",))


@case
def layer_norm_over_pixels() -> Case:
    """A norm over channels and pixels: its affine parameters lose a plane."""
    net = Net(lambda n, x: _pooled(n, n.norm(n.a(x))), a=nn.Conv2d(3, 6, 5), norm=nn.LayerNorm([6, 4, 4]), fc=_head(6))
    return Case(net, IMAGE, ("a>2 norm>2 fc<2",))


@case
def weight_standardised() -> Case:
    """Kernels standardised over their inputs: over those that are kept."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.a(x).relu())),
        a=StandardisedConv2d(3, 8, 3), b=StandardisedConv2d(8, 6, 3), fc=_head(6),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 b<3", "b>4 fc<4"))


@case
def weight_normed() -> Case:
    """A weight in direction and length, as nn.utils.parametrizations keeps it."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.a(x).relu())),
        a=nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3)), b=nn.Conv2d(8, 6, 3), fc=_head(6),
    )  # fmt: skip
    w = "a.parametrizations.weight.original"
    return Case(net, IMAGE, (f"{w}0:0=3 {w}1:0=3 a.bias:0=3 b<3", "b>4 fc<4"))


@case
def prelu() -> Case:
    """A slope per channel leaves with it."""
    return Case(_normed(nn.PReLU(8)), IMAGE, ("a>3 norm>3 b<3",))


@case
def prelu_shared() -> Case:
    """One slope for all has nothing to lose."""
    return Case(_normed(nn.PReLU()), IMAGE, ("a>3 b<3",))


@case
def layer_scale() -> Case:
    """A scale per channel on a residual branch."""
    net = Net(
        lambda n, x: _pooled(n, (y := n.a(x)) + n.b(y) * n.gamma),
        a=nn.Conv2d(3, 6, 1), b=nn.Conv2d(6, 6, 1), gamma=nn.Parameter(torch.ones(6, 1, 1)), fc=_head(6),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 b<3 b>3 gamma:0=3 fc<3",))


@case
def softmax_over_channels() -> Case:
    """Every channel matters to a softmax over them."""
    net = Net(lambda n, x: _pooled(n, n.a(x).softmax(1)), a=nn.Conv2d(3, 6, 1), fc=_head(6))
    return Case(net, IMAGE, (), {"a>3": "softmax"})


@case
def maximum_over_channels() -> Case:
    """The largest of what is kept, as a statistic."""
    net = Net(lambda n, x: n.fc(n.a(x).amax(1).flatten(1)), a=nn.Conv2d(3, 6, 1), fc=nn.Linear(64, 5))
    return Case(net, IMAGE, ("a>3",))


@case
def mean_over_channels() -> Case:
    """The mean of what is kept, as a statistic."""
    net = Net(lambda n, x: n.fc(n.a(x).mean(1).flatten(1)), a=nn.Conv2d(3, 6, 1), fc=nn.Linear(64, 5))
    return Case(net, IMAGE, ("a>3",))


@case
def sum_over_channels() -> Case:
    """A sum is a product with ones: what leaves added nothing."""
    net = Net(lambda n, x: n.fc(n.a(x).sum(1).flatten(1)), a=nn.Conv2d(3, 6, 1), fc=nn.Linear(64, 5))
    return Case(net, IMAGE, ("a>3",))


@case
def unit_vectors() -> Case:
    """F.normalize takes the length of what is kept."""
    net = Net(lambda n, x: n.fc(F.normalize(n.a(x.mean((2, 3))), dim=1)), a=nn.Linear(3, 6), fc=_head(6))
    return Case(net, IMAGE, ("a>3 fc<3",))


@case
def zero_initialised() -> Case:
    """A branch that starts at zero is still a branch."""
    b = nn.BatchNorm2d(6)
    nn.init.zeros_(b.weight)
    net = Net(
        lambda n, x: _pooled(n, (y := n.a(x)) + n.b(n.c(y))),
        a=nn.Conv2d(3, 6, 1), c=nn.Conv2d(6, 6, 1), b=b, fc=_head(6),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 c<3 c>3 b>3 fc<3",))


@case
def mean_of_one_channel_dimension() -> Case:
    """The spatial attention of CBAM: a mean over channels that is kept as a channel and mixed with the maximum."""
    net = Net(
        lambda n, x: _pooled(n, (y := n.a(x)) * n.s(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1))),
        a=nn.Conv2d(3, 6, 1), s=nn.Conv2d(2, 1, 3, padding=1), fc=_head(6),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 fc<3",))
