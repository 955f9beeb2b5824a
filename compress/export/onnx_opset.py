"""The newest operator set that the installed onnxruntime fully supports, asked of onnxruntime itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache

# Operators that ONNX itself gave up, or that only some builds know, are missing from here on and count in no set.
OLDEST = 17
UNBOUNDED = 2**31 - 1

Versions = Mapping[str, Sequence[int]]
Kernels = Mapping[str, Sequence[tuple[int, int]]]


@cache
def newest_opset() -> int | None:
    """Return the newest opset in which onnxruntime's CPU provider lacks no operator that it had in an older one.

    onnxruntime loads files of newer sets too, and then fails, or runs slowly, where an operator changed and its kernel
    did not follow. None where this onnxruntime does not list its kernels.
    """
    try:
        from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema, get_all_opkernel_def

        schemas, kernels = get_all_operator_schema(), get_all_opkernel_def()
    except (ImportError, AttributeError):
        return None
    versions: dict[str, list[int]] = defaultdict(list)
    for schema in schemas:
        if schema.domain in {"", "ai.onnx"}:
            versions[schema.name].append(int(schema.since_version))
    ranges: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for kernel in kernels:
        if kernel.domain in {"", "ai.onnx"} and kernel.provider == "CPUExecutionProvider":
            ranges[kernel.op_name].append(tuple(kernel.version_range))
    return newest_complete(versions, ranges)


def newest_complete(versions: Versions, kernels: Kernels) -> int | None:
    """Return the newest opset that lacks no more operators than the oldest one looked at.

    `versions` are the opsets in which each operator changed, `kernels` the ranges of versions that each has code for.

    >>> newest_complete({"Conv": [11, 22], "Roi": [16, 23]}, {"Conv": [(11, 21), (22, UNBOUNDED)], "Roi": [(16, 22)]})
    22
    """
    top = max((version for of in versions.values() for version in of), default=OLDEST)
    usual = _lacking(OLDEST, versions, kernels)
    complete = [opset for opset in range(OLDEST, top + 1) if _lacking(opset, versions, kernels) <= usual]
    return complete[-1] if complete and kernels else None


def _lacking(opset: int, versions: Versions, kernels: Kernels) -> set[str]:
    """Names of the operators that have a kernel, but none for their version in `opset`."""
    lacking = set()
    for name, changed in versions.items():
        valid = max((version for version in changed if version <= opset), default=None)
        if valid is not None and kernels.get(name) and not any(_fits(valid, run) for run in kernels[name]):
            lacking.add(name)
    return lacking


def _fits(version: int, run: tuple[int, int]) -> bool:
    """Tell whether a kernel takes an operator's version; a range without an end is good for its first version only."""
    first, last = run
    return first == version or (first < version <= last and last != UNBOUNDED)
