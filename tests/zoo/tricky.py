"""Small convolutional networks that go wrong easily, each with its answer."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tests.zoo.case import Case, case
from tests.zoo.harness import Net

IMAGE = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)
TO_READ = "read by a convolution from a fixed dimension"
OUTPUT = "output of the network"


def _head(width: int) -> nn.Linear:
    return nn.Linear(width, 5)


def _pooled(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.fc(x.mean((2, 3)))


@case
def chain() -> Case:
    """A plain chain: filter, norm and the next layer's input leave together; images and classes stay."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.bn(n.a(x)).relu())),
        a=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm2d(8), b=nn.Conv2d(8, 6, 3), fc=_head(6),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>3 bn>3 b<3", "b>5 fc<5"), {"a<0": TO_READ, "fc>0": OUTPUT})


@case
def residual() -> Case:
    """An identity shortcut: the whole stream leaves together, the block's inside on its own."""
    net = Net(
        lambda n, x: _pooled(n, (y := n.stem(x)) + n.b(n.a(y.relu()).relu())),
        stem=nn.Conv2d(3, 8, 1), a=nn.Conv2d(8, 6, 3, padding=1), b=nn.Conv2d(6, 8, 3, padding=1), fc=_head(8),
    )  # fmt: skip
    return Case(net, IMAGE, ("stem>2 a<2 b>2 fc<2", "a>4 b<4"))


@case
def projected_shortcut() -> Case:
    """A shortcut with a convolution: streams before and after are separate."""
    net = Net(
        lambda n, x: _pooled(n, n.short(y := n.stem(x)) + n.b(y)),
        stem=nn.Conv2d(3, 4, 1), short=nn.Conv2d(4, 8, 1), b=nn.Conv2d(4, 8, 1), fc=_head(8),
    )  # fmt: skip
    return Case(net, IMAGE, ("stem>1 short<1 b<1", "short>7 b>7 fc<7"))


@case
def padded_shortcut() -> Case:
    """A shortcut that pads channels with zeros: padded channels belong to the wider stream, the others to both."""
    net = Net(
        lambda n, x: _pooled(n, F.pad(y := n.stem(x), (0, 0, 0, 0, 2, 2)) + n.b(y)),
        stem=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 8, 1), fc=_head(8),
    )  # fmt: skip
    return Case(net, IMAGE, ("stem>1 b<1 b>3 fc<3", "b>0 fc<0"), follows=False)


@case
def squeeze_excite() -> Case:
    """A gate per channel: its last layer leaves with the channels it scales."""
    net = Net(
        lambda n, x: _pooled(n, (y := n.a(x)) * n.up(n.down(y.mean((2, 3), keepdim=True)).relu()).sigmoid()),
        a=nn.Conv2d(3, 8, 1), down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1), fc=_head(8),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>5 down<5 up>5 fc<5", "down>1 up<1"))


@case
def dense() -> Case:
    """Concatenation shifts indices: the second layer's channels are read at an offset."""
    net = Net(
        lambda n, x: _pooled(n, n.c(n.bn(torch.cat([y := n.a(x), n.b(y)], 1)))),
        a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 6, 1), bn=nn.BatchNorm2d(10), c=nn.Conv2d(10, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>1 b<1 bn>1 c<1", "b>2 bn>6 c<6"))


@case
def shuffled() -> Case:
    """A channel shuffle by view and transpose: the same position leaves every group."""

    def run(n: Net, x: torch.Tensor) -> torch.Tensor:
        y = n.a(x)
        b, _, h, w = y.shape
        return _pooled(n, n.b(y.view(b, 2, -1, h, w).transpose(1, 2).reshape(b, -1, h, w)))

    net = Net(run, a=nn.Conv2d(3, 12, 1), b=nn.Conv2d(12, 4, 1), fc=_head(4))
    return Case(net, IMAGE, ("a>1,7 b<2,3",))


@case
def shuffled_by_layer() -> Case:
    """nn.ChannelShuffle is the same shuffle in one operator."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.shuffle(n.a(x)))),
        a=nn.Conv2d(3, 12, 1), shuffle=nn.ChannelShuffle(2), b=nn.Conv2d(12, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>1,7 b<2,3",))


@case
def depthwise() -> Case:
    """A depthwise convolution passes channels through, times its multiplier."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.twice(n.dw(n.a(x))))),
        a=nn.Conv2d(3, 6, 1), dw=nn.Conv2d(6, 6, 3, groups=6), twice=nn.Conv2d(6, 12, 3, groups=6),
        b=nn.Conv2d(12, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>2 dw>2 twice>4,5 b<4,5",))


@case
def whole_groups() -> Case:
    """Many small groups: a whole group leaves, with its inputs and outputs."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.g(n.a(x)))),
        a=nn.Conv2d(3, 8, 1), g=nn.Conv2d(8, 12, 3, groups=4), b=nn.Conv2d(12, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>2,3 g>3-5 b<3-5",), {"g<1": "position inside a group"})


@case
def positions_in_groups() -> Case:
    """Few large groups: the same position leaves every group."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.g(n.a(x)))),
        a=nn.Conv2d(3, 8, 1), g=nn.Conv2d(8, 12, 3, groups=2), b=nn.Conv2d(12, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>1,5 g<1", "g>4,10 b<4,10"))


@case
def transposed() -> Case:
    """A transposed convolution stores its inputs first."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.up(n.a(x)))),
        a=nn.Conv2d(3, 6, 1), up=nn.ConvTranspose2d(6, 8, 2, 2), b=nn.Conv2d(8, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>5 up<5", "up>7 b<7"))


@case
def transposed_whole_groups() -> Case:
    """A transposed convolution in many groups loses whole groups."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.up(n.a(x)))),
        a=nn.Conv2d(3, 8, 1), up=nn.ConvTranspose2d(8, 12, 2, 2, groups=4), b=nn.Conv2d(12, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(
        net, IMAGE, ("a>2,3 up.weight:0=2,3 up.bias:0=3-5 b<3-5",), {"up.weight:1=0": "position inside a group"}
    )


@case
def transposed_positions() -> Case:
    """A transposed convolution in two groups loses the same position of both."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.up(n.a(x)))),
        a=nn.Conv2d(3, 8, 1), up=nn.ConvTranspose2d(8, 12, 2, 2, groups=2), b=nn.Conv2d(12, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>1,5 up.weight:0=1,5", "up.weight:1=4 up.bias:0=4,10 b<4,10"))


@case
def transposed_depthwise() -> Case:
    """A depthwise transposed convolution, as decoders upsample with."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.up(n.a(x)))),
        a=nn.Conv2d(3, 6, 1), up=nn.ConvTranspose2d(6, 6, 2, 2, groups=6), b=nn.Conv2d(6, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>2 up.weight:0=2 up.bias:0=2 b<2",))


@case
def transposed_depthwise_multiplied() -> Case:
    """A depthwise transposed convolution that makes two channels of each."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.up(n.a(x)))),
        a=nn.Conv2d(3, 6, 1), up=nn.ConvTranspose2d(6, 12, 2, 2, groups=6), b=nn.Conv2d(12, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>2 up.weight:0=2 up.bias:0=4,5 b<4,5",))


@case
def flattened() -> Case:
    """Flatten before a linear layer: a channel is read at all its pixels."""
    net = Net(lambda n, x: n.fc(n.a(x).flatten(1)), a=nn.Conv2d(3, 4, 3, stride=3), fc=nn.Linear(16, 5))
    return Case(net, IMAGE, ("a>1 fc<4-7",))


@case
def flattened_channels_last() -> Case:
    """NHWC, LayerNorm, flatten: a channel is read at every fourth column."""
    net = Net(
        lambda n, x: n.fc(n.norm(n.a(x).permute(0, 2, 3, 1)).flatten(1)),
        a=nn.Conv2d(3, 4, 3, stride=3), norm=nn.LayerNorm(4), fc=nn.Linear(16, 5),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>1 norm>1 fc<1,5,9,13",))


@case
def pixels_shuffled() -> Case:
    """PixelShuffle: the four channels that make one output channel leave together."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.up(n.a(x)))),
        a=nn.Conv2d(3, 12, 1), up=nn.PixelShuffle(2), b=nn.Conv2d(3, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>4-7 b<1",))


@case
def pixels_unshuffled() -> Case:
    """PixelUnshuffle: a channel is read at four places."""
    net = Net(
        lambda n, x: _pooled(n, n.b(n.down(n.a(x)))),
        a=nn.Conv2d(3, 5, 1), down=nn.PixelUnshuffle(2), b=nn.Conv2d(20, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>1 b<4-7",))


@case
def hard_coded_view() -> Case:
    """A view with the width written into the code: only the graph can follow."""
    net = Net(lambda n, x: n.fc(n.a(x).mean((2, 3)).view(-1, 8)), a=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 5))
    return Case(net, IMAGE, ("a>1 fc<1",), follows=False)


@case
def view_by_attribute() -> Case:
    """A view whose width is an attribute: the attribute is repaired."""
    net = Net(
        lambda n, x: n.fc(n.a(x).mean((2, 3)).view(-1, n.width)), a=nn.Conv2d(3, 8, 3), width=8, fc=nn.Linear(8, 5)
    )
    return Case(net, IMAGE, ("a>1 fc<1",))


@case
def sliced() -> Case:
    """Channels read by slices: some go one way, some the other; the code's numbers are the graph's to follow."""
    net = Net(
        lambda n, x: _pooled(n, n.b((y := n.a(x))[:, :3]) + n.c(y[:, 3:])),
        a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(3, 4, 1), c=nn.Conv2d(5, 4, 1), fc=_head(4),
    )  # fmt: skip
    return Case(net, IMAGE, ("a>1 b<1", "a>3 c<0", "b>2 c>2 fc<2"), follows=False)


@case
def chunked() -> Case:
    """A gate by chunk: both halves lose the same position."""
    net = Net(
        lambda n, x: _pooled(n, (h := n.a(x).chunk(2, 1))[0] * h[1].sigmoid()), a=nn.Conv2d(3, 12, 1), fc=_head(6)
    )
    return Case(net, IMAGE, ("a>1,7 fc<1",))


@case
def glu() -> Case:
    """F.glu is the same gate in one operator."""
    net = Net(lambda n, x: _pooled(n, F.glu(n.a(x), 1)), a=nn.Conv2d(3, 12, 1), fc=_head(6))
    return Case(net, IMAGE, ("a>1,7 fc<1",))


@case
def selected() -> Case:
    """Where the code takes a channel by its number, all keep their numbers."""
    net = Net(lambda n, x: _pooled(n, y := n.a(x)) + y[:, 2].mean((1, 2))[:, None], a=nn.Conv2d(3, 6, 1), fc=_head(6))
    return Case(net, IMAGE, (), {"a>2": "selected by its number"})


@case
def sliced_to_one() -> Case:
    """A slice of one channel: that channel stays, the others are free."""
    net = Net(lambda n, x: _pooled(n, (y := n.a(x)) * y[:, 0:1]), a=nn.Conv2d(3, 6, 1), fc=_head(6))
    return Case(net, IMAGE, ("a>5 fc<5",), {"a>0": "taken alone"})


@case
def padded_in_front() -> Case:
    """The padded tensor comes first in a sum that is then normalised over its channels."""
    net = Net(
        lambda n, x: _pooled(n, n.norm(F.pad(y := n.stem(x), (0, 0, 0, 0, 2, 2)) + n.b(y))).sum(1, keepdim=True),
        stem=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 8, 1), norm=nn.GroupNorm(1, 8), fc=_head(8),
    )  # fmt: skip
    return Case(net, IMAGE, ("stem>1 b<1 b>3 norm>3 fc<3", "b>0 norm>0 fc<0"), follows=False)


@case
def flipped() -> Case:
    """Channels in reversed order leave from the other end."""
    net = Net(lambda n, x: _pooled(n, n.a(x).flip(1)), a=nn.Conv2d(3, 6, 1), fc=_head(6))
    return Case(net, IMAGE, ("a>2 fc<3",))
