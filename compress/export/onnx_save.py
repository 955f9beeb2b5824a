"""An ONNX model becomes a file, with what it says about itself; weights that one file cannot hold lie beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

# A protobuf message ends at 2 GiB; the margin is for the graph around the weights.
LARGEST = 2**31 - 2**24
# Smaller tensors stay in the file, where shape inference can read them.
SMALLEST_OUTSIDE = 1024


def weight_bytes(proto: Any) -> int:
    """Bytes of all initialisers of an onnx ModelProto."""
    return sum(len(tensor.raw_data) for tensor in proto.graph.initializer)


def fits_in_one(proto: Any) -> bool:
    """Tell whether a ModelProto can be one file."""
    return weight_bytes(proto) <= LARGEST


def save(proto: Any, path: Path, about: Mapping[str, str]) -> tuple[str, ...]:
    """Write `proto` to `path` with `about` as its metadata; return notes.

    Where the weights do not fit into one file they lie in `path`.data beside it, and both belong together.
    """
    onnx.helper.set_model_props(proto, dict(sorted(about.items())))
    if fits_in_one(proto):
        path.write_bytes(proto.SerializeToString())
        return ()
    beside = f"{path.name}.data"
    onnx.save_model(
        proto,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=beside,
        size_threshold=SMALLEST_OUTSIDE,
    )
    onnx.checker.check_model(str(path))
    return (f"the weights lie beside it in {beside}: one ONNX file holds at most 2 GiB",)


def about_of(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file, without reading weights that lie beside it."""
    model = onnx.load(str(path), load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}
