"""Building blocks of random networks: functions (random, channels) -> module on (N, C, H, W), or None."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.harness import Net
from tests.zoo.tricky_norms import StandardisedConv2d

Block = Callable[[Random, int], nn.Module | None]
IMAGE_BLOCKS: dict[str, Block] = {}
WIDTHS = (4, 6, 8, 12)


def block(build: Block) -> Block:
    """Enter a block under its name."""
    IMAGE_BLOCKS[build.__name__] = build
    return build


class NormLast(nn.Module):
    """LayerNorm over the channels of (N, C, H, W)."""

    def __init__(self, width: int) -> None:
        """As nn.LayerNorm."""
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over dimension 1."""
        out: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return out


def norm(r: Random, c: int) -> nn.Module:
    """One of the norms, or none."""
    divisors = [g for g in range(1, c + 1) if c % g == 0]
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.BatchNorm2d(c),
        lambda: nn.BatchNorm2d(c),
        lambda: nn.BatchNorm2d(c, affine=False),
        lambda: nn.GroupNorm(r.choice(divisors), c),
        lambda: nn.GroupNorm(r.choice(divisors), c, affine=False),
        lambda: nn.InstanceNorm2d(c, affine=r.random() < 0.5),
        lambda: NormLast(c),
        nn.Identity,
    ]
    return r.choice(kinds)()


def activation(r: Random, c: int) -> nn.Module:
    """One of the activations; a sigmoid does not keep zero at zero."""
    kinds: list[Callable[[], nn.Module]] = [
        nn.ReLU, lambda: nn.ReLU(inplace=True), nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Softplus, nn.Identity,
        lambda: nn.PReLU(c), nn.PReLU, lambda: nn.LeakyReLU(0.1), lambda: nn.Dropout(0.2), nn.Mish, nn.Tanh,
    ]  # fmt: skip
    return r.choice(kinds)()


def conv_to(r: Random, c: int, out: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, norm, activation."""
    k = r.choice((1, 3))
    kind = r.choice((nn.Conv2d, nn.Conv2d, nn.Conv2d, StandardisedConv2d)) if groups == 1 and c > 1 else nn.Conv2d
    first = kind(c, out, k, stride, k // 2, groups=groups, bias=r.random() < 0.5)
    return nn.Sequential(first, norm(r, out), activation(r, out))


@block
def conv(r: Random, c: int) -> nn.Module:
    """A plain convolution."""
    return conv_to(r, c, r.choice(WIDTHS), stride=r.choice((1, 1, 2)))


@block
def grouped(r: Random, c: int) -> nn.Module | None:
    """A grouped convolution, any number of groups."""
    groups = r.choice([g for g in range(1, c + 1) if c % g == 0])
    return conv_to(r, c, groups * r.choice((1, 2, 3)), groups=groups)


@block
def depthwise_separable(r: Random, c: int) -> nn.Module:
    """Depthwise with a multiplier, then pointwise."""
    times = r.choice((1, 1, 2))
    return nn.Sequential(conv_to(r, c, c * times, groups=c), conv_to(r, c * times, r.choice(WIDTHS)))


@block
def transposed(r: Random, c: int) -> nn.Module:
    """A transposed convolution, any number of groups."""
    groups = r.choice([g for g in range(1, c + 1) if c % g == 0])
    out = groups * r.choice((1, 2))
    return nn.Sequential(nn.ConvTranspose2d(c, out, 2, 1, groups=groups), activation(r, out))


@block
def residual(r: Random, c: int) -> nn.Module:
    """Identity shortcut around one or two convolutions, either summand first."""
    mid = r.choice(WIDTHS)
    body = nn.Sequential(conv_to(r, c, mid), conv_to(r, mid, c))
    first = r.random() < 0.5
    return Net(lambda n, x: x + n.body(x) if first else n.body(x) + x, body=body)


@block
def projected(r: Random, c: int) -> nn.Module:
    """A shortcut with a convolution, with a stride for both."""
    out, stride = r.choice(WIDTHS), r.choice((1, 2))
    a, b = conv_to(r, c, out, stride=stride), conv_to(r, c, out, stride=stride)
    return Net(lambda n, x: F.relu(n.a(x) + n.b(x)), a=a, b=b)


@block
def padded_shortcut(r: Random, c: int) -> nn.Module:
    """A shortcut that pads channels, in front, behind or both."""
    before, after = r.choice(((0, 2), (2, 0), (1, 3)))
    first = r.random() < 0.5
    body = conv_to(r, c, c + before + after)

    def run(n: Net, x: Tensor) -> Tensor:
        wide = F.pad(x, (0, 0, 0, 0, before, after))
        return wide + n.body(x) if first else n.body(x) + wide

    return Net(run, body=body)


@block
def inverted(r: Random, c: int) -> nn.Module:
    """Expand, depthwise, gate, project, with a residual and a layer scale."""
    mid = c * 2
    body = nn.Sequential(
        conv_to(r, c, mid),
        conv_to(r, mid, mid, groups=mid),
        squeeze_excite(r, mid) or nn.Identity(),
        nn.Conv2d(mid, c, 1),
    )
    return Net(lambda n, x: x + n.body(x) * n.gamma, body=body, gamma=nn.Parameter(torch.ones(c, 1, 1)))


@block
def squeeze_excite(r: Random, c: int) -> nn.Module:
    """A gate per channel, by 1 x 1 convolutions or by linear layers."""
    mid = r.choice((2, 3, 4))
    if r.random() < 0.5:
        return Net(
            lambda n, x: x * n.up(n.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid(),
            down=nn.Conv2d(c, mid, 1), up=nn.Conv2d(mid, c, 1),
        )  # fmt: skip
    return Net(
        lambda n, x: n.up(n.down(F.adaptive_avg_pool2d(x, 1).flatten(1)).relu()).sigmoid()[..., None, None] * x,
        down=nn.Linear(c, mid), up=nn.Linear(mid, c),
    )  # fmt: skip


@block
def concatenated(r: Random, c: int) -> nn.Module:
    """Two or three branches side by side, perhaps with the input."""
    branches = [conv_to(r, c, r.choice(WIDTHS)) for _ in range(r.choice((1, 2, 3)))]
    if len(branches) == 1 or r.random() < 0.3:
        branches.insert(r.randrange(len(branches) + 1), nn.Identity())  # type: ignore[arg-type]
    return Net(lambda n, x: torch.cat([b(x) for b in n.branches], 1), branches=nn.ModuleList(branches))


@block
def dense(r: Random, c: int) -> nn.Module:
    """Each layer reads all before it."""
    grow = r.choice((2, 4))
    layers = [nn.Sequential(norm(r, c + i * grow), conv_to(r, c + i * grow, grow)) for i in range(3)]

    def run(n: Net, x: Tensor) -> Tensor:
        seen = [x]
        for layer in n.layers:
            seen.append(layer(torch.cat(seen, 1)))
        return torch.cat(seen, 1)

    return Net(run, layers=nn.ModuleList(layers))


@block
def split_and_joined(r: Random, c: int) -> nn.Module | None:
    """Half of the channels pass, the other half is worked on."""
    if c % 2:
        return None
    body = conv_to(r, c // 2, c // 2)
    hard = r.random() < 0.5

    def run(n: Net, x: Tensor) -> Tensor:
        one, two = (x[:, : c // 2], x[:, c // 2 :]) if hard else x.chunk(2, 1)
        return torch.cat([one, n.body(two)], 1)

    return Net(run, body=body)


@block
def split_unevenly(r: Random, c: int) -> nn.Module:
    """Runs of given sizes, worked on apart."""
    sizes = [2, c - 2]
    bodies = nn.ModuleList([conv_to(r, size, r.choice(WIDTHS)) for size in sizes])
    return Net(
        lambda n, x: torch.cat([b(part) for b, part in zip(n.bodies, x.split(n.sizes, 1), strict=True)], 1),
        bodies=bodies, sizes=sizes,
    )  # fmt: skip


@block
def split_with_a_remainder(r: Random, c: int) -> nn.Module | None:
    """Runs of one size but for a shorter last one, by number or by size, some of them worked on."""
    runs = r.choice((3, 4, 5))
    sizes = [len(part) for part in torch.arange(c).chunk(runs)]
    if sizes[0] == sizes[-1] or len(sizes) < 2:
        return None
    by_size = r.random() < 0.5
    bodies = nn.ModuleList([conv_to(r, n, n) if r.random() < 0.7 else nn.Identity() for n in sizes])

    def run(n: Net, x: Tensor) -> Tensor:
        parts = x.split(n.width, 1) if by_size else x.chunk(runs, 1)
        return torch.cat([body(part) for body, part in zip(n.bodies, parts, strict=True)], 1)

    return Net(run, bodies=bodies, width=sizes[0])


@block
def hierarchical(r: Random, c: int) -> nn.Module | None:
    """Four chunks, each adding to the next, as in Res2Net."""
    if c % 4:
        return None
    bodies = nn.ModuleList([conv_to(r, c // 4, c // 4) for _ in range(3)])

    def run(n: Net, x: Tensor) -> Tensor:
        parts = x.chunk(4, 1)
        done = [parts[0]]
        for body, part in zip(n.bodies, parts[1:], strict=True):
            done.append(body(part + done[-1]))
        return torch.cat(done, 1)

    return Net(run, bodies=bodies)


@block
def shuffled(r: Random, c: int) -> nn.Module | None:
    """A channel shuffle, by layer or by view, the batch read or inferred."""
    groups = r.choice([g for g in (2, 3, 4) if c % g == 0] or [1])
    if groups == 1:
        return None
    if r.random() < 0.3:
        return nn.ChannelShuffle(groups)
    if r.random() < 0.5:
        return Net(lambda n, x: x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2))
    return Net(lambda n, x: x.view(x.shape[0], groups, c // groups, *x.shape[2:]).transpose(1, 2).reshape(x.shape))


@block
def pixels(r: Random, c: int) -> nn.Module | None:
    """Channels into pixels or back."""
    if r.random() < 0.5:
        return Net(lambda n, x: n.down(x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]), down=nn.PixelUnshuffle(2))
    return nn.Sequential(conv_to(r, c, 12), nn.PixelShuffle(2), conv_to(r, 3, 4))


@block
def padded(r: Random, c: int) -> nn.Module:
    """Channels padded with zeros or with a number."""
    amount = (0, 0, 0, 0, r.choice((0, 1)), r.choice((1, 2)))
    return Net(lambda n, x: F.pad(x, amount, value=n.value), value=float(r.choice((0.0, 0.5))))


@block
def sliced(r: Random, c: int) -> nn.Module:
    """Some channels thrown away."""
    start, stop = r.choice(((0, c - 2), (1, c), (2, c - 1)))
    return Net(lambda n, x: x[:, start:stop])


@block
def mirrored(r: Random, c: int) -> nn.Module:
    """Both signs side by side (CReLU)."""
    return Net(lambda n, x: torch.cat([x, -x], 1).relu())


@block
def shared(r: Random, c: int) -> nn.Module:
    """One layer, run twice."""
    return Net(lambda n, x: n.body(n.body(x).relu()), body=nn.Conv2d(c, c, 3, 1, 1))


@block
def gated(r: Random, c: int) -> nn.Module:
    """GLU, by its operator or by chunk."""
    out = r.choice(WIDTHS)
    body = nn.Conv2d(c, 2 * out, 1)
    if r.random() < 0.5:
        return Net(lambda n, x: F.glu(n.body(x), 1), body=body)
    return Net(lambda n, x: (h := n.body(x).chunk(2, 1))[0] * F.gelu(h[1]), body=body)


@block
def spatial_attention(r: Random, c: int) -> nn.Module:
    """A map made from statistics over channels."""
    return Net(
        lambda n, x: x * n.mix(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid(),
        mix=nn.Conv2d(2, 1, 3, 1, 1),
    )


@block
def multiplied(r: Random, c: int) -> nn.Module:
    """Two branches multiplied."""
    out = r.choice(WIDTHS)
    return Net(lambda n, x: n.a(x) * n.b(x).sigmoid() + n.c, a=conv_to(r, c, out), b=nn.Conv2d(c, out, 1),
               c=nn.Parameter(torch.zeros(1, out, 1, 1)))  # fmt: skip


@block
def over_channels(r: Random, c: int) -> nn.Module:
    """Operators that need every channel: softmax, cumsum, sort, flip, roll, a permutation."""
    order = torch.tensor(r.sample(range(c), c))
    kinds: list[Callable[[Net, Tensor], Tensor]] = [
        lambda n, x: x.softmax(1), lambda n, x: x.cumsum(1), lambda n, x: x.sort(1).values, lambda n, x: x.flip(1),
        lambda n, x: x.roll(1, 1), lambda n, x: x[:, n.order], lambda n, x: x.index_select(1, n.order),
        lambda n, x: x[:, ::2], lambda n, x: x - x.max(1, keepdim=True).values, lambda n, x: x / x.shape[1],
        lambda n, x: x * x[:, :1], lambda n, x: x + x[:, 1][:, None], lambda n, x: x[:, -2:],
    ]  # fmt: skip
    net = Net(r.choice(kinds))
    net.register_buffer("order", order)
    return net


@block
def unknown(r: Random, c: int) -> nn.Module:
    """Operators without a rule, on the channels and beside them."""
    kinds: list[Callable[[Net, Tensor], Tensor]] = [
        lambda n, x: torch.fft.fft(x, dim=1).real, lambda n, x: torch.fft.rfft2(x).abs(),
        lambda n, x: torch.linalg.qr((f := x.flatten(2)).mT @ f + 5 * torch.eye(f.shape[2], dtype=x.dtype))[1][:, None],
        lambda n, x: torch.cdist(x.flatten(2), x.flatten(2))[:, None], lambda n, x: x.unfold(1, 2, 1).sum(-1),
        lambda n, x: torch.diff(x, dim=1), lambda n, x: x.take_along_dim(x.argsort(1), 1),
        lambda n, x: x.renorm(2, 1, 0.7),
    ]  # fmt: skip
    return Net(r.choice(kinds))


@block
def channels_last(r: Random, c: int) -> nn.Module:
    """Norm and perceptron on (N, H, W, C), with a residual and a layer scale."""
    return Net(
        lambda n, x: x + (n.gamma * n.two(F.gelu(n.one(n.norm(n.dw(x).permute(0, 2, 3, 1)))))).permute(0, 3, 1, 2),
        dw=nn.Conv2d(c, c, 3, 1, 1, groups=c), norm=nn.LayerNorm(c), one=nn.Linear(c, 3 * c), two=nn.Linear(3 * c, c),
        gamma=nn.Parameter(torch.ones(c)),
    )  # fmt: skip


@block
def stacked(r: Random, c: int) -> nn.Module:
    """Branches stacked, weighted by a softmax over the branches (selective kernels), or reduced."""
    out = r.choice(WIDTHS)
    a, b = conv_to(r, c, out), conv_to(r, c, out)
    if r.random() < 0.5:

        def run(n: Net, x: Tensor) -> Tensor:
            y = torch.stack([n.a(x), n.b(x)], 1)
            weights = n.up(n.down(y.sum(1).mean((2, 3)))).view(x.shape[0], 2, -1, 1, 1).softmax(1)
            return (y * weights).sum(1)

        return Net(run, a=a, b=b, down=nn.Linear(out, 4), up=nn.Linear(4, 2 * out))
    how = r.choice(("sum", "mean", "amax"))
    at = r.choice((0, 1, 2))
    return Net(lambda n, x: getattr(torch.stack([n.a(x), n.b(x)], at), how)(at), a=a, b=b)


@block
def split_attention(r: Random, c: int) -> nn.Module | None:
    """A grouped convolution whose groups are summed (radix)."""
    if c % 2:
        return None
    body = nn.Conv2d(c, 2 * c, 3, 1, 1, groups=2)
    return Net(lambda n, x: n.body(x).unflatten(1, (2, -1)).sum(1), body=body)


@block
def non_local(r: Random, c: int) -> nn.Module:
    """Pixels attend to pixels through matrix products or einsum."""
    w = r.choice(WIDTHS)
    parts = {"q": nn.Conv2d(c, w, 1), "k": nn.Conv2d(c, w, 1), "v": nn.Conv2d(c, w, 1), "out": nn.Conv2d(w, c, 1)}
    by_einsum = r.random() < 0.5

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).flatten(2) for m in (n.q, n.k, n.v))
        if by_einsum:
            y = torch.einsum("bij,bcj->bci", torch.einsum("bci,bcj->bij", q, k).softmax(-1), v)
        else:
            y = v @ (q.mT @ k).softmax(-1).mT
        return x + n.out(y.reshape(x.shape[0], -1, *x.shape[2:]))

    return Net(run, **parts)


@block
def channel_attention(r: Random, c: int) -> nn.Module:
    """Channels attend to channels: all of them stay."""
    return Net(lambda n, x: x + ((f := x.flatten(2)) @ f.mT).softmax(-1).matmul(f).view_as(x))


@block
def resized(r: Random, c: int) -> nn.Module:
    """Pooling and resizing."""
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.MaxPool2d(2, 1), lambda: nn.AvgPool2d(2, ceil_mode=True), lambda: nn.Upsample(scale_factor=1.5),
        lambda: nn.ZeroPad2d(1), lambda: nn.ReflectionPad2d(1), lambda: nn.AdaptiveMaxPool2d(3),
        lambda: Net(lambda n, x: F.interpolate(x, (5, 5), mode="bilinear")), lambda: nn.AdaptiveAvgPool2d((4, 3)),
        lambda: Net(lambda n, x: F.interpolate(F.max_pool2d(x, 2, ceil_mode=True), x.shape[2:]) + x),
    ]  # fmt: skip
    return r.choice(kinds)()


@block
def normalised(r: Random, c: int) -> nn.Module:
    """Norms written out: unit vectors, response norm, a mean taken away."""
    kinds: list[Callable[[Net, Tensor], Tensor]] = [
        lambda n, x: F.normalize(x, dim=1), lambda n, x: x - x.mean((1, 2, 3), keepdim=True),
        lambda n, x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5),
        lambda n, x: x + x * (g := x.norm(dim=(2, 3), keepdim=True)) / (g.mean(1, keepdim=True) + 1e-6),
        lambda n, x: (x - x.mean(1, keepdim=True)) / (x.std(1, correction=0, keepdim=True) + 1e-2),
        lambda n, x: F.layer_norm(x, x.shape[2:]),
    ]  # fmt: skip
    return Net(r.choice(kinds))


@block
def written_into(r: Random, c: int) -> nn.Module:
    """A tensor filled slice by slice, and arithmetic in place."""
    a, b = nn.Conv2d(c, 4, 1), nn.Conv2d(c, 6, 1)

    def run(n: Net, x: Tensor) -> Tensor:
        y = x.new_zeros(x.shape[0], 10, *x.shape[2:])
        y[:, :4] = n.a(x)
        y[:, 4:] += n.b(x)
        return y.mul_(1.5).clamp_(min=-2)

    return Net(run, a=a, b=b)


@block
def sum_of_kernels(r: Random, c: int) -> nn.Module:
    """A kernel made from two parameters, or masked by a buffer."""
    out = r.choice(WIDTHS)
    net = Net(
        lambda n, x: F.conv2d(x, (n.one + F.pad(n.two, (1, 1, 1, 1))) * n.mask, n.bias, padding=1),
        one=nn.Parameter(torch.randn(out, c, 3, 3)), two=nn.Parameter(torch.randn(out, c, 1, 1)),
        bias=nn.Parameter(torch.zeros(out)),
    )  # fmt: skip
    net.register_buffer("mask", (torch.rand(out, c, 3, 3) > 0.3).float())
    return net


@block
def wrapped_norm(r: Random, c: int) -> nn.Module:
    """Weight norm, by parametrisation."""
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(c, r.choice(WIDTHS), 1))  # type: ignore[no-any-return]


@block
def expanded(r: Random, c: int) -> nn.Module:
    """A description of the whole image laid over every pixel."""
    kinds: list[Callable[[Net, Tensor], Tensor]] = [
        lambda n, x: torch.cat([x, x.mean((2, 3), keepdim=True).expand_as(x)], 1),
        lambda n, x: torch.cat([x, x.mean((2, 3), keepdim=True).repeat(1, 1, *x.shape[2:])], 1),
        lambda n, x: torch.cat([x, x.amax((2, 3), keepdim=True).expand(-1, c, *x.shape[2:])], 1),
        lambda n, x: x.repeat(1, 2, 1, 1), lambda n, x: x.repeat_interleave(2, 1),
        lambda n, x: torch.cat([x, torch.ones_like(x[:, :1])], 1),
        lambda n, x: torch.where(x > 0, x, x.mean((2, 3), keepdim=True)),
    ]  # fmt: skip
    return Net(r.choice(kinds))


@block
def windowed(r: Random, c: int) -> nn.Module:
    """Attention inside windows of two by two pixels, perhaps shifted, with a bias per head gathered from a table."""
    heads, width, shift = r.choice((1, 2, 3)), r.choice((2, 4)), r.choice((0, 1))
    hard = r.random() < 0.5

    def run(n: Net, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
        y = n.norm(x[..., :rows, :columns].permute(0, 2, 3, 1))
        y = torch.roll(y, (-shift, -shift), (1, 2)) if shift else y
        kept = c if hard else y.shape[-1]
        y = y.view(-1, rows // 2, 2, columns // 2, 2, kept).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, kept)
        q, k, v = n.qkv(y).reshape(y.shape[0], 4, 3, -1, width).permute(2, 0, 3, 1, 4).unbind(0)
        bias = n.table[n.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)
        y = n.out(((q * n.scale) @ k.mT + bias[None]).softmax(-1).matmul(v).transpose(1, 2).reshape(-1, 4, n.inner))
        y = y.view(-1, rows // 2, columns // 2, 2, 2, kept).permute(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, kept)
        y = torch.roll(y, (shift, shift), (1, 2)) if shift else y
        return x[..., :rows, :columns] + y.permute(0, 3, 1, 2)

    net = Net(run, norm=nn.LayerNorm(c), qkv=nn.Linear(c, 3 * heads * width), out=nn.Linear(heads * width, c),
              table=nn.Parameter(torch.randn(9, heads)), inner=heads * width, scale=width**-0.5)  # fmt: skip
    place = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
    apart = place[:, :, None] - place[:, None] + 1
    net.register_buffer("index", apart[0] * 3 + apart[1])
    return net


@block
def space_to_depth(r: Random, c: int) -> nn.Module:
    """Four neighbouring pixels side by side, by slices or by a view, and a convolution over them."""
    by_slices = r.random() < 0.5

    def run(n: Net, x: Tensor) -> Tensor:
        x = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        if by_slices:
            y = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        else:
            b, k, h, w = x.shape
            y = x.view(b, k, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(b, k * 4, h // 2, w // 2)
        return n.mix(y)

    return Net(run, mix=conv_to(r, 4 * c, r.choice(WIDTHS)))


@block
def chosen(r: Random, c: int) -> nn.Module:
    """Channels taken one by one, some twice and some never, by positions in a buffer."""
    order = torch.tensor([r.randrange(c) for _ in range(r.choice(WIDTHS))])
    twice = r.random() < 0.3
    run: Callable[[Net, Tensor], Tensor] = r.choice(
        (lambda n, x: n.mix(x[:, n.order]), lambda n, x: n.mix(x.index_select(1, n.order)))
    )
    net = Net(
        (lambda n, x: run(n, n.body(x)) + n.other(x)[:, n.order].mean(1, keepdim=True)) if twice else run,
        body=nn.Conv2d(c, c, 1), other=nn.Conv2d(c, c, 1), mix=conv_to(r, len(order), r.choice(WIDTHS)),
    )  # fmt: skip
    net.register_buffer("order", order)
    return net


@block
def volumes(r: Random, c: int) -> nn.Module:
    """An image and its mirror image as two frames: 3-d convolutions, plain, grouped or transposed, with their norm."""
    out = r.choice(WIDTHS)
    groups = r.choice((1, 2))
    second = r.choice((nn.Conv3d, nn.ConvTranspose3d))(out, out, (1, 3, 3), padding=(0, 1, 1), groups=groups)
    return Net(
        lambda n, x: n.two(F.relu(n.bn(n.one(torch.stack([x, x.flip(3)], 2))))).mean(2),
        one=nn.Conv3d(c, out, (2, 1, 1)), bn=nn.BatchNorm3d(out), two=second,
    )  # fmt: skip


@block
def hourglass(r: Random, c: int) -> nn.Module:
    """Down by a stride, up by a transposed convolution (perhaps in groups) or by interpolation, beside the input."""
    mid, groups = r.choice(WIDTHS), r.choice((1, 2))
    up: nn.Module = nn.ConvTranspose2d(mid, mid, 4, 2, 1, groups=groups)
    if r.random() < 0.3:
        up = nn.Upsample(scale_factor=2, mode="bilinear")

    def run(n: Net, x: Tensor) -> Tensor:
        y = F.interpolate(n.up(n.down(x)), x.shape[2:], mode="nearest")
        return torch.cat([x, n.act(y)], 1)

    return Net(run, down=conv_to(r, c, mid, stride=2), up=up, act=activation(r, mid))


@block
def tied(r: Random, c: int) -> nn.Module:
    """One kernel there and back: its transpose undoes what it did."""
    mid = r.choice(WIDTHS)
    return Net(
        lambda n, x: x + F.conv_transpose2d(F.conv2d(x, n.kernel, n.bias).relu(), n.kernel),
        kernel=nn.Parameter(torch.randn(mid, c, 1, 1)), bias=nn.Parameter(torch.zeros(mid)),
    )  # fmt: skip


@block
def standardised(r: Random, c: int) -> nn.Module:
    """Kernels standardised by a batch norm over their inputs, with a gain per output (BiT, NFNet)."""
    out = r.choice(WIDTHS)

    def run(n: Net, x: Tensor) -> Tensor:
        gain = n.gain * n.scale if n.scaled else None
        flat = F.batch_norm(n.weight.reshape(1, n.weight.shape[0], -1), None, None, gain, training=True, eps=1e-4)
        return F.conv2d(x, flat.reshape_as(n.weight), n.bias, padding=1)

    return Net(run, weight=nn.Parameter(torch.randn(out, c, 3, 3)), gain=nn.Parameter(torch.ones(out)),
               bias=nn.Parameter(torch.zeros(out)), scale=0.5, scaled=r.random() < 0.5)  # fmt: skip


@block
def placed(r: Random, c: int) -> nn.Module:
    """An embedding of the place added to every pixel: resized, cropped, or one for rows and one for columns."""
    kinds: list[Callable[[Net, Tensor], Tensor]] = [
        lambda n, x: x + F.interpolate(n.place, x.shape[2:], mode="bilinear"),
        lambda n, x: x + n.place[:, :, :1, :1].expand_as(x), lambda n, x: x + n.place.mean(2, keepdim=True)[..., :1],
        lambda n, x: n.mix(x) + n.rows(torch.arange(x.shape[2]) % 5).mT[None, :, :, None],
    ]  # fmt: skip
    return Net(r.choice(kinds), place=nn.Parameter(torch.randn(1, c, 4, 4)), rows=nn.Embedding(5, c),
               mix=nn.Conv2d(c, c, 1))  # fmt: skip
