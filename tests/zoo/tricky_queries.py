"""Query heads that share key heads: one head of keys for all, or a few."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from compress.core.choosing import Attention
from tests.zoo.case import Case, case
from tests.zoo.harness import Net
from tests.zoo.tricky_tokens import TOKENS, _layers, _merge


def _shared_head(n: Net, x: Tensor) -> Tensor:
    q = n.q(x).unflatten(-1, (-1, 4)).transpose(1, 2)
    k, v = (m(x)[:, None].expand(-1, q.shape[1], -1, -1) for m in (n.k, n.v))
    return _merge(n, F.scaled_dot_product_attention(q, k, v))


def _shared_head_by_products(n: Net, x: Tensor) -> Tensor:
    q = n.q(x).unflatten(-1, (n.heads, -1)).transpose(1, 2)
    k, v = (m(x)[:, None] for m in (n.k, n.v))
    return _merge(n, (q @ k.mT * n.scale).softmax(-1) @ v)


def _layers_of(queries: int, keys: int) -> dict[str, nn.Module]:
    return _layers(queries, keys)


@case
def multi_query() -> Case:
    """All query heads share one key head, which stays: every query head leaves by itself."""
    return Case(Net(_shared_head, **_layers_of(16, 4)), TOKENS, ("q>4-7 fc<4-7",), {"k>0": "", "v>1": "merged"})


@case
def multi_query_by_products() -> Case:
    """The same by matrix products."""
    net = Net(_shared_head_by_products, heads=4, scale=0.5, **_layers_of(16, 4))
    return Case(net, TOKENS, ("q>4-7 fc<4-7",), {"k>0": "", "v>1": "merged"})


@case
def multi_query_by_dims() -> Case:
    """The same position leaves every query head and the one key head; likewise the value."""
    net = Net(_shared_head_by_products, heads=4, scale=0.5, **_layers_of(16, 4))
    return Case(net, TOKENS, ("q>1,5,9,13 k>1", "v>1 fc<1,5,9,13"), attention=Attention.DIMS)


def _heads(n: Net, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(m(x).unflatten(-1, (-1, 4)).transpose(1, 2) for m in (n.q, n.k, n.v))


def _evenly(run: object, *, follows: bool = True) -> Case:
    """Two key heads of four queries each: the same query leaves both, and the key heads stay."""
    net = Net(run, times=4, **_layers_of(32, 8))  # type: ignore[arg-type]
    return Case(net, TOKENS, ("q>4-7,20-23 fc<4-7,20-23",), {"k>4": "", "v>4": ""}, follows=follows)


@case
def grouped_query_evenly() -> Case:
    """By expand and reshape."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = _heads(n, x)
        k, v = (t[:, :, None].expand(-1, -1, n.times, -1, -1).flatten(1, 2) for t in (k, v))
        return _merge(n, F.scaled_dot_product_attention(q, k, v))

    return _evenly(run)


@case
def grouped_query_evenly_by_repeat() -> Case:
    """By repeat_interleave."""

    def run(n: Net, x: Tensor) -> Tensor:
        q, k, v = _heads(n, x)
        return _merge(n, F.scaled_dot_product_attention(q, *(t.repeat_interleave(n.times, 1) for t in (k, v))))

    return _evenly(run)


@case
def grouped_query_evenly_by_flag() -> Case:
    """Inside scaled_dot_product_attention."""
    return _evenly(lambda n, x: _merge(n, F.scaled_dot_product_attention(*_heads(n, x), enable_gqa=True)))


@case
def queries_added_to_what_they_gather() -> Case:
    """Heads leave whole, also where filters over tokens that all heads share give queries that are added afterwards."""

    def run(n: Net, x: Tensor) -> Tensor:
        heads = (m(x).unflatten(-1, (-1, 8)).transpose(1, 2) for m in (n.q, n.k, n.v))
        q, k, v = (n.pool(y.flatten(0, 1).mT).mT.unflatten(0, (2, -1)) for y in heads)
        return _merge(n, (q @ k.mT).softmax(-1) @ v + q)

    net = Net(run, pool=nn.Conv1d(8, 8, 3, padding=1, groups=8), **_layers_of(16, 16))
    return Case(net, TOKENS, ("q>8-15 k>8-15 v>8-15 fc<8-15",), {"pool>0": "depthwise on a fixed dimension"})
