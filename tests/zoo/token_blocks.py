"""Building blocks of random networks on tokens: functions (random, channels) -> module on (N, T, C)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.blocks import WIDTHS, Block
from tests.zoo.harness import Net
from tests.zoo.tricky_norms import HandMadeRMSNorm

TOKEN_BLOCKS: dict[str, Block] = {}


def block(build: Block) -> Block:
    """Enter a block under its name."""
    TOKEN_BLOCKS[build.__name__] = build
    return build


def norm(r: Random, c: int) -> nn.Module:
    """One of the norms over the last dimension."""
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.LayerNorm(c), lambda: nn.LayerNorm(c, elementwise_affine=False), lambda: nn.RMSNorm(c),
        lambda: HandMadeRMSNorm(c), nn.Identity,
    ]  # fmt: skip
    return r.choice(kinds)()


def _heads(n: Net, x: Tensor, width: int) -> Tensor:
    """Split heads: the width, the number, or both written into the code."""
    if n.known == "width":
        return x.unflatten(-1, (-1, width)).transpose(1, 2)
    if n.known == "number":
        return x.view(x.shape[0], x.shape[1], x.shape[2] // width, -1).transpose(1, 2)
    return x.reshape(x.shape[0], -1, n.heads if x.shape[2] == n.heads * width else x.shape[2] // width, width).permute(
        0, 2, 1, 3
    )


def _attend(n: Net, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention in one of its spellings, (N, H, T, D) -> (N, T, H D)."""
    if n.how == "sdpa":
        y = F.scaled_dot_product_attention(q, k, v)
    elif n.how == "causal":
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    elif n.how == "products":
        y = (q @ k.transpose(-2, -1) * n.scale).softmax(-1) @ v
    else:
        y = torch.einsum("bhqk,bhkd->bhqd", torch.einsum("bhqd,bhkd->bhqk", q * n.scale, k).softmax(-1), v)
    return y.transpose(1, 2).flatten(2)


def _spelling(r: Random, heads: int, width: int) -> dict[str, object]:
    known, how = r.choice(("width", "number", "both")), r.choice(("sdpa", "causal", "products", "einsum"))
    return {"known": known, "how": how, "heads": heads, "scale": width**-0.5}


@block
def attention(r: Random, c: int) -> nn.Module:
    """Attention with separate layers for queries, keys and values; values may have a width of their own."""
    heads, width = r.choice((1, 2, 3, 4)), r.choice((2, 4))
    inner = heads * width

    def run(n: Net, x: Tensor) -> Tensor:
        y = n.norm(x)
        return x + n.out(_attend(n, *(_heads(n, m(y), width) for m in (n.q, n.k, n.v))))

    return Net(run, norm=norm(r, c), q=nn.Linear(c, inner), k=nn.Linear(c, inner, bias=False), v=nn.Linear(c, inner),
               out=nn.Linear(inner, c), **_spelling(r, heads, width))  # fmt: skip


@block
def fused_attention(r: Random, c: int) -> nn.Module:
    """One layer for queries, keys and values, taken apart by reshape, chunk or split."""
    heads, width, apart = r.choice((1, 2, 4)), r.choice((2, 4)), r.choice(("reshape", "chunk", "split", "unbind"))

    def run(n: Net, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        y = n.qkv(n.norm(x))
        if apart in ("reshape", "unbind"):
            five = y.reshape(b, t, 3, -1, width).permute(2, 0, 3, 1, 4)
            q, k, v = five if apart == "reshape" else five.unbind(0)
        else:
            parts = y.chunk(3, -1) if apart == "chunk" else y.split(y.shape[-1] // 3, -1)
            q, k, v = (_heads(n, part, width) for part in parts)
        return x + n.out(_attend(n, q, k, v))

    return Net(run, norm=norm(r, c), qkv=nn.Linear(c, 3 * heads * width), out=nn.Linear(heads * width, c),
               **_spelling(r, heads, width))  # fmt: skip


@block
def grouped_query(r: Random, c: int) -> nn.Module:
    """Several query heads read one key head (grouped or multi-query)."""
    width, keys, times, way = (
        r.choice((2, 4)),
        r.choice((1, 2)),
        r.choice((2, 3)),
        r.choice(("repeat", "expand", "flag")),
    )

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (_heads(n, m(x), width) for m in (n.q, n.k, n.v))
        if way == "flag":
            return x + n.out(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))
        if way == "repeat":
            k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        else:
            k, v = (t[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2) for t in (k, v))
        return x + n.out(_attend(n, q, k, v))

    return Net(run, q=nn.Linear(c, keys * times * width), k=nn.Linear(c, keys * width), v=nn.Linear(c, keys * width),
               out=nn.Linear(keys * times * width, c), **_spelling(r, keys * times, width))  # fmt: skip


@block
def multihead(r: Random, c: int) -> nn.Module | None:
    """PyTorch's own attention layer or encoder layer."""
    if c % 2:
        return None
    if r.random() < 0.4:
        return nn.TransformerEncoderLayer(c, 2, r.choice(WIDTHS), 0.0, batch_first=True, norm_first=r.random() < 0.5)
    needed = r.random() < 0.5
    return Net(
        lambda n, x: x + n.mha(x, x, x, need_weights=needed)[0], mha=nn.MultiheadAttention(c, 2, batch_first=True)
    )


@block
def biased_attention(r: Random, c: int) -> nn.Module:
    """A bias per head, from a table or whole, added to the scores."""
    heads, width = r.choice((2, 4)), 2
    how = r.choice(("table", "whole", "mask"))

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (_heads(n, m(x), width) for m in (n.q, n.k, n.v))
        t = x.shape[1]
        if how == "table":
            places = (torch.arange(t)[:, None] - torch.arange(t)) % 5
            bias = n.table[places.flatten()].view(t, t, -1).permute(2, 0, 1)
        else:
            bias = n.table[:1, :, None].transpose(0, 1).expand(-1, t, t)
        if how == "mask":
            return x + n.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))
        return x + n.out(((q @ k.mT + bias).softmax(-1) @ v).transpose(1, 2).flatten(2))

    return Net(run, q=nn.Linear(c, heads * width), k=nn.Linear(c, heads * width), v=nn.Linear(c, heads * width),
               out=nn.Linear(heads * width, c), table=nn.Parameter(torch.randn(5, heads)),
               known="width", heads=heads)  # fmt: skip


@block
def perceptron(r: Random, c: int) -> nn.Module:
    """Two layers around an activation, with a residual."""
    mid = r.choice(WIDTHS)
    act = r.choice((nn.GELU, nn.ReLU, nn.Sigmoid))()
    return Net(lambda n, x: x + n.two(n.act(n.one(n.norm(x)))), norm=norm(r, c), one=nn.Linear(c, mid), act=act,
               two=nn.Linear(mid, c))  # fmt: skip


@block
def gated_perceptron(r: Random, c: int) -> nn.Module:
    """SwiGLU from two layers or one."""
    mid = r.choice(WIDTHS)
    if r.random() < 0.5:
        return Net(lambda n, x: x + n.two((h := n.one(x).chunk(2, -1))[0] * F.silu(h[1])), one=nn.Linear(c, 2 * mid),
                   two=nn.Linear(mid, c))  # fmt: skip
    return Net(lambda n, x: x + n.two(n.one(x) * F.silu(n.gate(x))), one=nn.Linear(c, mid), gate=nn.Linear(c, mid),
               two=nn.Linear(mid, c))  # fmt: skip


@block
def mixed_tokens(r: Random, c: int) -> nn.Module:
    """A kernel over the tokens: the first four are mixed into eight, and those into six."""
    return Net(lambda n, x: n.two(F.gelu(n.one(x[:, :4].mT))).mT, one=nn.Linear(4, 8), two=nn.Linear(8, 6))


@block
def projected(r: Random, c: int) -> nn.Module:
    """A plain linear layer to another width."""
    return nn.Sequential(norm(r, c), nn.Linear(c, r.choice(WIDTHS), bias=r.random() < 0.7))


@block
def merged(r: Random, c: int) -> nn.Module:
    """Neighbouring tokens side by side, as in patch merging; or by unfolding."""
    out = r.choice(WIDTHS)
    if r.random() < 0.5:
        return Net(lambda n, x: n.two(n.norm(torch.cat([x[:, : x.shape[1] // 2], x[:, -(x.shape[1] // 2) :]], -1))),
                   norm=nn.LayerNorm(2 * c), two=nn.Linear(2 * c, out))  # fmt: skip
    return Net(
        lambda n, x: n.two(x[:, : x.shape[1] // 2 * 2].reshape(x.shape[0], x.shape[1] // 2, -1)),
        two=nn.Linear(2 * c, out),
    )


@block
def class_token(r: Random, c: int) -> nn.Module:
    """A token in front of the others."""
    return Net(
        lambda n, x: torch.cat([n.token.expand(x.shape[0], -1, -1), x], 1), token=nn.Parameter(torch.zeros(1, 1, c))
    )


@block
def convolved(r: Random, c: int) -> nn.Module:
    """A 1-d convolution over tokens, perhaps depthwise, with its norm."""
    out = c if (dw := r.random() < 0.5) else r.choice(WIDTHS)
    return Net(
        lambda n, x: n.bn(n.conv(x.mT)).mT,
        conv=nn.Conv1d(c, out, 3, 1, 1, groups=c if dw else 1),
        bn=nn.BatchNorm1d(out),
    )


@block
def recurrent(r: Random, c: int) -> nn.Module:
    """LSTM, GRU or a plain recurrent layer."""
    kind, out = r.choice((nn.LSTM, nn.GRU, nn.RNN)), r.choice((4, 6))
    return Net(lambda n, x: n.rnn(x)[0], rnn=kind(c, out, batch_first=True, num_layers=r.choice((1, 2)),
               bidirectional=r.random() < 0.3))  # fmt: skip


@block
def bilinear(r: Random, c: int) -> nn.Module:
    """Outer products and batch matrix products."""
    kinds: list[Callable[[Net, Tensor], Tensor]] = [
        lambda n, x: (n.a(x)[..., None] * n.b(x)[..., None, :]).flatten(2), lambda n, x: n.a(x) @ n.w + n.b(x),
        lambda n, x: torch.einsum("btc,cd->btd", n.a(x), n.w), lambda n, x: torch.matmul(n.b(x), n.w.T),
        lambda n, x: F.linear(n.a(x), n.w.T @ n.w), lambda n, x: torch.addcmul(n.b(x), n.b(x), n.v),
        lambda n, x: torch.tensordot(n.a(x), n.w, dims=([2], [0])),
        lambda n, x: F.cosine_similarity(n.a(x)[..., None], n.w, dim=2),
    ]  # fmt: skip
    return Net(
        r.choice(kinds),
        a=nn.Linear(c, 4),
        b=nn.Linear(c, 6),
        w=nn.Parameter(torch.randn(4, 6)),
        v=nn.Parameter(torch.randn(6)),
    )


@block
def linear_attention(r: Random, c: int) -> nn.Module:
    """Attention without a softmax over tokens: keys times values first."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, 2)).transpose(1, 2) for m in (n.q, n.k, n.v))
        y = q.sigmoid() @ (k.sigmoid().mT @ v)
        return n.out(y.transpose(1, 2).flatten(2)) / x.shape[1]

    return Net(run, q=nn.Linear(c, 8), k=nn.Linear(c, 8), v=nn.Linear(c, 8), out=nn.Linear(8, c))


@block
def experts(r: Random, c: int) -> nn.Module:
    """A soft mixture: a softmax over the experts weighs their outputs."""
    out = r.choice(WIDTHS)
    bodies = nn.ModuleList([nn.Linear(c, out) for _ in range(3)])
    return Net(
        lambda n, x: (torch.stack([b(x) for b in n.bodies], -1) * n.gate(x).softmax(-1)[..., None, :]).sum(-1),
        bodies=bodies, gate=nn.Linear(c, 3),
    )  # fmt: skip


@block
def multi_query(r: Random, c: int) -> nn.Module:
    """All query heads read the one key head, broadcast or expanded."""
    heads, width, way = r.choice((2, 3, 4)), r.choice((2, 4)), r.choice(("broadcast", "expand", "einsum"))

    def run(n: Net, x: Tensor) -> Tensor:
        q = _heads(n, n.q(x), width)
        k, v = n.k(x), n.v(x)
        if way == "einsum":
            y = torch.einsum("bhqk,bkd->bhqd", (torch.einsum("bhqd,bkd->bhqk", q, k) * n.scale).softmax(-1), v)
        elif way == "broadcast":
            y = (q @ k[:, None].mT * n.scale).softmax(-1) @ v[:, None]
        else:
            y = F.scaled_dot_product_attention(q, *(t[:, None].expand(-1, q.shape[1], -1, -1) for t in (k, v)))
        return x + n.out(y.transpose(1, 2).flatten(2))

    return Net(run, q=nn.Linear(c, heads * width), k=nn.Linear(c, width), v=nn.Linear(c, width),
               out=nn.Linear(heads * width, c), **_spelling(r, heads, width))  # fmt: skip


@block
def cross_attention(r: Random, c: int) -> nn.Module:
    """A few learned queries read the tokens, by products or by PyTorch's own layer with widths of its own."""
    width, own = r.choice((4, 8)), r.random() < 0.5

    def run(n: Net, x: Tensor) -> Tensor:
        q = n.latent.expand(x.shape[0], -1, -1)
        if own:
            return n.mha(q, x, x)[0]
        return n.out(F.scaled_dot_product_attention(n.q(q), n.k(x), n.v(x)))

    latent = nn.Parameter(torch.randn(1, 4, width))
    if own:
        return Net(run, latent=latent, mha=nn.MultiheadAttention(width, 2, kdim=c, vdim=c, batch_first=True))
    return Net(run, latent=latent, q=nn.Linear(width, 6), k=nn.Linear(c, 6), v=nn.Linear(c, 8), out=nn.Linear(8, width))


@block
def placed(r: Random, c: int) -> nn.Module:
    """An embedding of the place added to every token: a parameter or an Embedding, perhaps beside a class token."""
    kinds: list[Callable[[Net, Tensor], Tensor]] = [
        lambda n, x: x + n.place[:, : x.shape[1]], lambda n, x: x + n.rows(torch.arange(x.shape[1]) % 5),
        lambda n, x: torch.cat([n.token.expand(x.shape[0], -1, -1), x + n.place[:, 1 : x.shape[1] + 1]], 1)[:, 1:],
        lambda n, x: torch.cat([(n.token + n.place[:, :1]).repeat(x.shape[0], 1, 1), n.mix(x)], 1),
    ]  # fmt: skip
    return Net(r.choice(kinds), place=nn.Parameter(torch.randn(1, 40, c)), rows=nn.Embedding(5, c), mix=nn.Linear(c, c),
               token=nn.Parameter(torch.randn(1, 1, c)))  # fmt: skip


@block
def scaled(r: Random, c: int) -> nn.Module:
    """A perceptron behind a layer scale and bare shifts."""
    mid = r.choice(WIDTHS)
    return Net(lambda n, x: x + n.gamma * n.two(F.gelu(n.one(n.alpha * x + n.beta))), one=nn.Linear(c, mid),
               two=nn.Linear(mid, c), gamma=nn.Parameter(torch.ones(c)), alpha=nn.Parameter(torch.ones(1, 1, c)),
               beta=nn.Parameter(torch.zeros(c)))  # fmt: skip


@block
def as_image(r: Random, c: int) -> nn.Module:
    """The first four tokens as a small image, the channels written into the view or not."""
    hard = r.random() < 0.5
    return Net(
        lambda n, x: n.body(x[:, :4].mT.reshape(x.shape[0], c if hard else -1, 2, 2)).flatten(2).mT,
        body=nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, groups=c), nn.BatchNorm2d(c), nn.Conv2d(c, r.choice(WIDTHS), 1)),
    )


@block
def tied(r: Random, c: int) -> nn.Module:
    """One kernel there and back, by its transpose."""
    mid = r.choice(WIDTHS)
    return Net(lambda n, x: x + F.linear(F.linear(x, n.kernel).relu(), n.kernel.T, n.bias),
               kernel=nn.Parameter(torch.randn(mid, c)), bias=nn.Parameter(torch.zeros(c)))  # fmt: skip


@block
def narrowing(r: Random, c: int) -> nn.Module:
    """1-d convolutions with a stride and back (perhaps in groups), with a norm."""
    mid, groups = r.choice(WIDTHS), r.choice((1, 2))
    kind: Callable[[], nn.Module] = r.choice(
        (lambda: nn.BatchNorm1d(mid), lambda: nn.InstanceNorm1d(mid), lambda: nn.GroupNorm(2, mid), nn.Identity)
    )
    return Net(lambda n, x: n.up(n.norm(n.down(x.mT)).relu()).mT, down=nn.Conv1d(c, mid, 3, 2, 1), norm=kind(),
               up=nn.ConvTranspose1d(mid, mid, 4, 2, 1, groups=groups))  # fmt: skip
