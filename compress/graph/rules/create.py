"""New tensors. Constant ones may lose any index, so their dimensions get fresh labels; the others are fixed."""

from __future__ import annotations

from compress.graph.couplings import Couplings, operands
from compress.graph.rules.elementwise import pointwise
from compress.graph.rules.table import rule
from compress.graph.trace import Op


@rule(
    "aten.zeros",
    "aten.ones",
    "aten.full",
    "aten.empty",
    "aten.new_zeros",
    "aten.new_ones",
    "aten.new_full",
    "aten.new_empty",
    "aten.empty_strided",
    "aten.new_empty_strided",
)
def constant(c: Couplings, op: Op) -> None:
    """A tensor whose elements are all alike: no index is special."""
    out = op.outs[0]
    c.set(out, [((d,), c.fresh(size)) for d, size in enumerate(c.shape(out)) if size > 1])
    c.const.add(out)


@rule("aten.arange", "aten.linspace", "aten.eye", "aten.scalar_tensor", "aten.tril_indices", "aten.triu_indices")
def positions(c: Couplings, op: Op) -> None:
    """A tensor whose values are its positions: no index can leave."""
    c.set(op.outs[0], [])


@rule("aten.rand", "aten.randn", "aten.rand_like", "aten.randn_like", "aten.bernoulli",
      "aten.uniform_", "aten.normal_")  # fmt: skip
def draws(c: Couplings, op: Op) -> None:
    """Random numbers: as many are drawn as before, so that a cut network draws the same ones and can be checked.

    In training nobody compares, and no index is special.
    """
    if c.training:
        (pointwise if operands(op) else constant)(c, op)
        return
    for v in operands(op):
        c.fix_all(v, "random numbers are drawn for it")
    c.set(op.outs[0], [])


@rule("aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.equal")
def read(c: Couplings, op: Op) -> None:
    """The program looks at a value: whatever made it must stay as it is."""
    for v in operands(op):
        c.fix_sources(v, "the network's code reads a value computed from this")


@rule("aten.sym_size", "aten.sym_stride", "aten.sym_numel", "aten._assert_async", "aten._assert_tensor_metadata")
def nothing(_c: Couplings, _op: Op) -> None:
    """Looks at shapes only."""
