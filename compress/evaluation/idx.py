"""MNIST and its relatives: idx files, gzipped or not, in torchvision's layout or side by side in one folder."""

from __future__ import annotations

import gzip
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.core.errors import DataError
from compress.evaluation.raw import Raw, Request, named

DOWNLOADS = Path("data")
# where Debian's packages put data sets
SYSTEM = Path("/usr/share/datasets")


@named.register("fashion-mnist")
def fashion_mnist(request: Request) -> Raw:
    """Read Fashion-MNIST: 28 x 28 grey images of ten kinds of clothing."""
    from torchvision.datasets import FashionMNIST

    return _read(FashionMNIST, "fashion-mnist", request)


@named.register("mnist")
def mnist(request: Request) -> Raw:
    """Read MNIST: 28 x 28 grey images of the ten digits."""
    from torchvision.datasets import MNIST

    return _read(MNIST, "mnist", request)


def _read(kind: Any, name: str, request: Request) -> Raw:
    prefix = "t10k" if request.split == "test" else "train"
    folders = [request.place] if request.place else [DOWNLOADS, SYSTEM / name]
    places = [folder / inner for folder in folders for inner in (f"{kind.__name__}/raw", "raw", ".")]
    files = _beside_each_other(places, (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"))
    if files is None and request.download:
        _download(kind, folders[0])
        files = _beside_each_other(places, (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"))
    if files is None:
        raise DataError(
            f"{name} is not in {' or '.join(map(str, folders))}",
            fix=f"name its folder as {name}:DIR, or add --download to fetch it into {folders[0]}",
        )
    images, labels = _tensor(files[0], "read_image_file"), _tensor(files[1], "read_label_file")
    if len(images) != len(labels):
        raise DataError(
            f"{files[0].parent} holds {len(images)} images but {len(labels)} labels", fix="download it again"
        )
    pixels = images.numpy()
    return Raw(
        name=f"{name} ({request.split})",
        length=len(pixels),
        image=lambda i: pixels[i],
        labels=labels.tolist(),
        class_names=tuple(kind.classes),
    )


def _beside_each_other(places: list[Path], names: tuple[str, str]) -> tuple[Path, Path] | None:
    for place in places:
        found = [next((p for p in (place / n, place / f"{n}.gz") if p.is_file()), None) for n in names]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None


def _download(kind: Any, folder: Path) -> None:
    try:
        kind(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{kind.__name__} cannot be fetched into {folder}: {error}", fix="check the network") from error


def _tensor(path: Path, reader: str) -> Tensor:
    """Read an idx file by torchvision's own reader, which knows only files that are not compressed."""
    from torchvision.datasets import mnist as readers

    read = getattr(readers, reader)
    try:
        if path.suffix != ".gz":
            return read(str(path))  # type: ignore[no-any-return]
        with tempfile.NamedTemporaryFile() as plain:
            with gzip.open(path) as packed:
                shutil.copyfileobj(packed, plain)
            plain.flush()
            return read(plain.name)  # type: ignore[no-any-return]
    except Exception as error:
        raise DataError(
            f"{path} is not a whole idx file: {type(error).__name__}: {error}", fix="download it again"
        ) from error
