"""Fourier transforms and complex numbers."""

from __future__ import annotations

from compress.graph.couplings import Couplings, operands
from compress.graph.rules.elementwise import pointwise
from compress.graph.rules.table import arguments, rule, value, wrap
from compress.graph.trace import Op


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def transform(c: Couplings, op: Op) -> None:
    """Along some dimensions, which stay; the others are carried."""
    a = arguments(op)
    x = value(a["self"])
    for d in a["dim"]:
        c.fix(x, wrap(int(d), len(c.shape(x))), "Fourier transform along the channels")
    c.set(op.outs[0], c.layout(x))


@rule("aten.view_as_real", "aten.view_as_complex")
def seen_as(c: Couplings, op: Op) -> None:
    """Real and imaginary part as a last dimension of 2, or such a dimension as one number."""
    (x,) = operands(op)
    if len(c.shape(x)) > len(c.shape(op.outs[0])):
        c.fix(x, len(c.shape(x)) - 1, "real and imaginary part")
    c.set(op.outs[0], c.layout(x))


rule("aten._conj", "aten._conj_physical", "aten.resolve_conj", "aten._neg_view", "aten.resolve_neg", "aten.complex",
     "aten.polar", "aten.real", "aten.imag", "aten.angle")(pointwise)  # fmt: skip
