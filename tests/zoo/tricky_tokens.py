"""Attention in all its spellings, sequences and recurrence, each with its answer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.choosing import Attention
from tests.zoo.case import Case, case
from tests.zoo.harness import Net

TOKENS = (torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(2)),)
WORDS = (torch.randint(0, 11, (2, 7), generator=torch.Generator().manual_seed(3)),)
HEAD = "q>4-7 k>4-7 fc<4-7 v>4-7"


def _heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, 4)).transpose(1, 2)


def _layers(query: int = 16, key: int = 16) -> dict[str, nn.Module]:
    return {"q": nn.Linear(6, query), "k": nn.Linear(6, key), "v": nn.Linear(6, key), "fc": nn.Linear(query, 5)}


def _merge(n: Net, x: Tensor) -> Tensor:
    out: Tensor = n.fc(x.transpose(1, 2).flatten(2))
    return out


def _sdpa(n: Net, x: Tensor) -> Tensor:
    q, k, v = (m(x).unflatten(-1, (-1, 4)).transpose(1, 2) for m in (n.q, n.k, n.v))
    return _merge(n, F.scaled_dot_product_attention(q, k, v))


@case
def attention_by_heads() -> Case:
    """A head leaves with its queries, keys, values and what reads it; heads are counted by the code."""
    return Case(Net(_sdpa, **_layers()), TOKENS, (HEAD,))


@case
def attention_by_dims() -> Case:
    """The same position leaves every head; queries and keys are one, values another."""
    net = Net(
        lambda n, x: _merge(
            n, F.scaled_dot_product_attention(*(m(x).unflatten(-1, (4, -1)).transpose(1, 2) for m in (n.q, n.k, n.v)))
        ),
        **_layers(),
    )
    together = ("q>1,5,9,13 k>1,5,9,13", "v>1,5,9,13 fc<1,5,9,13")
    # The code takes the scale from the width, which the graph can fix and the module cannot.
    return Case(net, TOKENS, together, attention=Attention.DIMS, follows=False)


@case
def attention_by_products() -> Case:
    """Two matrix products and a softmax, heads as an attribute."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (_heads(m(x), n.heads) for m in (n.q, n.k, n.v))
        return _merge(n, (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v)

    return Case(Net(run, heads=4, **_layers()), TOKENS, (HEAD,))


@case
def attention_with_its_own_scale() -> Case:
    """A scale kept as an attribute is the original's: by dimension the module follows."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (4, -1)).transpose(1, 2) for m in (n.q, n.k, n.v))
        return _merge(n, (q @ k.mT * n.scale).softmax(-1) @ v)

    together = ("q>1,5,9,13 k>1,5,9,13", "v>1,5,9,13 fc<1,5,9,13")
    return Case(Net(run, scale=0.5, **_layers()), TOKENS, together, attention=Attention.DIMS)


@case
def attention_by_einsum() -> Case:
    """The same products by einsum, with heads next to the tokens."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, 4)) for m in (n.q, n.k, n.v))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        out: Tensor = n.fc(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2))
        return out

    return Case(Net(run, **_layers()), TOKENS, (HEAD,))


@case
def attention_fused() -> Case:
    """One layer for queries, keys and values, split by reshape and permute."""

    def run(n: Net, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = n.qkv(x).reshape(b, t, 3, n.heads, -1).permute(2, 0, 3, 1, 4)
        return _merge(n, F.scaled_dot_product_attention(q, k, v))

    net = Net(run, heads=4, qkv=nn.Linear(6, 48), fc=nn.Linear(16, 5))
    return Case(net, TOKENS, ("qkv>4-7,20-23,36-39 fc<4-7",))


@case
def attention_fused_chunks() -> Case:
    """The same, split by chunk."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (-1, 4)).transpose(1, 2) for part in n.qkv(x).chunk(3, -1))
        return _merge(n, F.scaled_dot_product_attention(q, k, v))

    return Case(Net(run, qkv=nn.Linear(6, 48), fc=nn.Linear(16, 5)), TOKENS, ("qkv>4-7,20-23,36-39 fc<4-7",))


@case
def multihead_attention() -> Case:
    """PyTorch's layer: heads inside, the stream outside."""

    def run(n: Net, x: Tensor) -> Tensor:
        y = n.a(x)
        out: Tensor = n.fc(y + n.mha(y, y, y, need_weights=False)[0])
        return out

    net = Net(run, a=nn.Linear(6, 16), mha=nn.MultiheadAttention(16, 4, batch_first=True), fc=nn.Linear(16, 5))
    head = "mha.in_proj_weight:0=4-7,20-23,36-39 mha.in_proj_bias:0=4-7,20-23,36-39 mha.out_proj.weight:1=4-7"
    stream = "a>3 mha.in_proj_weight:1=3 mha.out_proj>3 fc<3"
    return Case(net, TOKENS, (head, stream), follows=False)


@case
def grouped_query_by_repeat() -> Case:
    """Two query heads share a key head by repeat_interleave: both leave with it."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, 4)).transpose(1, 2) for m in (n.q, n.k, n.v))
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        return _merge(n, F.scaled_dot_product_attention(q, k, v))

    return Case(Net(run, **_layers(16, 8)), TOKENS, ("q>0-7 k>0-3 v>0-3 fc<0-7",))


@case
def grouped_query_by_expand() -> Case:
    """The same by expand and reshape."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, 4)).transpose(1, 2) for m in (n.q, n.k, n.v))
        k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for t in (k, v))
        return _merge(n, F.scaled_dot_product_attention(q, k, v))

    return Case(Net(run, **_layers(16, 8)), TOKENS, ("q>0-7 k>0-3 v>0-3 fc<0-7",))


@case
def grouped_query_by_flag() -> Case:
    """The same inside scaled_dot_product_attention."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, 4)).transpose(1, 2) for m in (n.q, n.k, n.v))
        return _merge(n, F.scaled_dot_product_attention(q, k, v, enable_gqa=True))

    return Case(Net(run, **_layers(16, 8)), TOKENS, ("q>0-7 k>0-3 v>0-3 fc<0-7",))


@case
def relative_position_bias() -> Case:
    """A table of biases, one column a head."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, 4)).transpose(1, 2) for m in (n.q, n.k, n.v))
        bias = n.table[n.places.view(-1)].view(7, 7, -1).permute(2, 0, 1)
        return _merge(n, (q @ k.mT + bias).softmax(-1) @ v)

    net = Net(run, table=nn.Parameter(torch.randn(13, 4)), **_layers())
    steps = torch.arange(7)
    net.register_buffer("places", steps[:, None] - steps + 6)
    return Case(net, TOKENS, (HEAD + " table:1=1",), {"table:0=0": "index"})


@case
def attention_mask() -> Case:
    """A learned mask per head added inside scaled_dot_product_attention."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (-1, 4)).transpose(1, 2) for m in (n.q, n.k, n.v))
        return _merge(n, F.scaled_dot_product_attention(q, k, v, attn_mask=n.mask))

    return Case(Net(run, mask=nn.Parameter(torch.randn(4, 7, 7)), **_layers()), TOKENS, (HEAD + " mask:0=1",))


@case
def class_token() -> Case:
    """A token in front and a position for each: both are as wide as the stream."""

    def run(n: Net, x: Tensor) -> Tensor:
        y = torch.cat([n.token.expand(x.shape[0], -1, -1), n.a(x)], 1) + n.place
        out: Tensor = n.fc(n.b(y)[:, 0])
        return out

    net = Net(
        run, a=nn.Linear(6, 8), token=nn.Parameter(torch.zeros(1, 1, 8)), place=nn.Parameter(torch.zeros(1, 8, 8)),
        b=nn.Linear(8, 6), fc=nn.Linear(6, 5),
    )  # fmt: skip
    return Case(net, TOKENS, ("a>3 token:2=3 place:2=3 b<3", "b>2 fc<2"))


@case
def encoder_layer() -> Case:
    """PyTorch's transformer encoder layer: its feed-forward width leaves freely."""
    layer = nn.TransformerEncoderLayer(16, 4, 12, dropout=0.0, batch_first=True)
    net = Net(lambda n, x: n.fc(n.layer(n.a(x))), a=nn.Linear(6, 16), layer=layer, fc=nn.Linear(16, 5))
    stream = (
        "a>3 layer.self_attn.in_proj_weight:1=3 layer.self_attn.out_proj>3 layer.norm1>3 layer.linear1<3 "
        "layer.linear2>3 layer.norm2>3 fc<3"
    )
    return Case(net, TOKENS, ("layer.linear1>7 layer.linear2<7", stream), follows=False)


@case
def gated_feed_forward() -> Case:
    """Two layers multiplied: one width."""
    net = Net(
        lambda n, x: n.fc(F.silu(n.gate(x)) * n.up(x)), gate=nn.Linear(6, 8), up=nn.Linear(6, 8), fc=nn.Linear(8, 5)
    )
    return Case(net, TOKENS, ("gate>3 up>3 fc<3",))


@case
def linear_chain() -> Case:
    """A perceptron."""
    net = Net(lambda n, x: n.fc(n.b(n.a(x).relu()).relu()), a=nn.Linear(6, 8), b=nn.Linear(8, 7), fc=nn.Linear(7, 5))
    return Case(net, TOKENS, ("a>3 b<3", "b>6 fc<6"), {"a<0": "", "fc>1": "output of the network"})


@case
def tied_weights() -> Case:
    """One matrix for words in and words out: its width leaves at both ends, its words stay."""
    net = Net(lambda n, x: n.out(n.a(n.words(x)) + n.words(x)), words=nn.Embedding(11, 8), a=nn.Linear(8, 8),
              out=nn.Linear(8, 11, bias=False))  # fmt: skip
    net.out.weight = net.words.weight
    return Case(net, WORDS, ("words.weight:1=3 a>3 a<3",), {"words.weight:0=2": "index"})


@case
def shared_layer() -> Case:
    """A layer that runs twice: its outputs are its inputs."""
    net = Net(lambda n, x: n.fc(n.b(n.b(n.a(x)).relu())), a=nn.Linear(6, 8), b=nn.Linear(8, 8), fc=nn.Linear(8, 5))
    return Case(net, TOKENS, ("a>3 b>3 b<3 fc<3",))


@case
def summed_over_tokens_and_channels() -> Case:
    """Both dimensions of a sum lose indices."""
    net = Net(lambda n, x: n.b(n.a(x).mT).sum((1, 2))[:, None] + 1, a=nn.Linear(6, 8), b=nn.Linear(7, 5))
    return Case(net, TOKENS, ("a>3", "b>2"))


@case
def embedding() -> Case:
    """Words stay, the width of their vectors leaves."""
    net = Net(lambda n, x: n.fc(n.words(x).mean(1)), words=nn.Embedding(11, 8), fc=nn.Linear(8, 5))
    return Case(net, WORDS, ("words.weight:1=3 fc<3",), {"words.weight:0=2": "index"})


def _recurrent(layer: nn.Module) -> Net:
    return Net(lambda n, x: n.fc(n.rnn(n.a(x))[0][:, -1]), a=nn.Linear(6, 8), rnn=layer, fc=nn.Linear(8, 5))


def _cell(gates: str) -> str:
    owners = " ".join(f"rnn.{name}_l0:0={gates}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return f"{owners} rnn.weight_hh_l0:1=3 fc<3"


@case
def lstm() -> Case:
    """A memory cell leaves with its four gates, and with what reads it one step later."""
    net = _recurrent(nn.LSTM(8, 8, batch_first=True))
    return Case(net, TOKENS, (_cell("3,11,19,27"), "a>2 rnn.weight_ih_l0:1=2"), exports=False)


@case
def gru() -> Case:
    """The same with three gates."""
    net = _recurrent(nn.GRU(8, 8, batch_first=True))
    return Case(net, TOKENS, (_cell("3,11,19"), "a>2 rnn.weight_ih_l0:1=2"), exports=False)


@case
def conv1d() -> Case:
    """Sequences convolve like images."""
    net = Net(
        lambda n, x: n.fc(n.b(n.bn(n.a(x.mT))).mean(-1)),
        a=nn.Conv1d(6, 8, 3), bn=nn.BatchNorm1d(8), b=nn.Conv1d(8, 4, 3), fc=nn.Linear(4, 5),
    )  # fmt: skip
    return Case(net, TOKENS, ("a>3 bn>3 b<3", "b>1 fc<1"))


@case
def conv3d() -> Case:
    """And so do volumes."""
    net = Net(
        lambda n, x: n.fc(n.b(n.bn(n.a(x))).mean((2, 3, 4))),
        a=nn.Conv3d(2, 8, 3), bn=nn.BatchNorm3d(8), b=nn.Conv3d(8, 4, 1), fc=nn.Linear(4, 5),
    )  # fmt: skip
    return Case(net, (torch.randn(2, 2, 5, 5, 5),), ("a>3 bn>3 b<3", "b>1 fc<1"))
