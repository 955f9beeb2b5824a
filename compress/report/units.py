"""Numbers as people read them."""

from __future__ import annotations

import math

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def count(value: float) -> str:
    """Return a count with a decimal prefix.

    >>> count(512), count(11_689_512)
    ('512', '11.69 M')
    """
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.2f} {prefix}"
    return f"{value:g}"


def byte_size(value: int) -> str:
    """Return a number of bytes with a binary prefix.

    >>> byte_size(100), byte_size(46_800_000)
    ('100 B', '44.63 MiB')
    """
    for size, prefix in _BINARY:
        if value >= size:
            return f"{value / size:.2f} {prefix}"
    return f"{value} B"


def duration(seconds: float) -> str:
    """Return a time with three significant digits.

    >>> duration(0.01234), duration(75.0)
    ('12.3 ms', '75 s')
    """
    for size, unit in _SECONDS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def percentage(fraction: float) -> str:
    """Return a fraction in [0, 1] as a percentage.

    >>> percentage(0.91237)
    '91.24 %'
    """
    return f"{100 * fraction:.2f} %"


def ratio(before: float, after: float) -> str:
    """Return after / before; a dash where there is nothing to divide by.

    >>> ratio(4, 1), ratio(0, 1)
    ('0.250', '-')
    """
    if before == 0 or not math.isfinite(before) or not math.isfinite(after):
        return "-"
    return f"{after / before:.3f}"
