"""Images in folders, and data sets that a user's own function returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.checkpoint.source import call_factory
from compress.core.errors import DataError
from compress.evaluation.raw import Raw, Request

# a data set on disk calls its parts by these names
PARTS = {"test": ("test", "val"), "train": ("train",)}
GREY_MODES = ("1", "L", "I", "I;16", "F", "LA")


def read_folder(request: Request) -> Raw:
    """Read one folder a class, or a bare folder of images without labels.

    Where the folder has parts (`train/`, `val/` or `test/`), the one asked for is read. Raises DataError where there
    is no image, or where the images are coloured and the network reads grey.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert request.place is not None
    root = next((p for p in (request.place / part for part in PARTS[request.split]) if p.is_dir()), request.place)
    bare = sorted(p for p in root.iterdir() if p.suffix.lower() in IMG_EXTENSIONS)
    if bare and not any(p.is_dir() for p in root.iterdir()):
        samples: list[tuple[Any, int | None]] = [(path, None) for path in bare]
        names: tuple[str, ...] = ()
    else:
        try:
            folder = ImageFolder(str(root))
        except FileNotFoundError as error:
            raise DataError(
                f"{root} holds no images in one folder a class: {error}",
                fix="put the images in one folder a class, or all into one folder for data without labels",
            ) from error
        samples, names = list(folder.samples), tuple(folder.classes)
    mode = _mode(Path(samples[0][0]), request.channels)
    labels = [label for _, label in samples if label is not None]
    return Raw(
        name=str(root),
        length=len(samples),
        image=lambda i: _opened(Path(samples[i][0]), mode),
        labels=labels or None,
        class_names=names,
        one_to_one=bool(names),
    )


def _mode(first: Path, channels: int) -> str:
    """Return how to open the images, judged by the first one: grey only where they are grey."""
    if channels != 1:
        return "RGB"
    from PIL import Image

    try:
        with Image.open(first) as image:
            grey = image.mode in GREY_MODES
    except OSError as error:
        raise DataError(f"{first} is not a readable image", fix="remove or replace it") from error
    if not grey:
        raise DataError(
            f"the images are coloured ({first}) but the network reads 1 channel",
            fix="convert them to grey in the way the network was trained on",
        )
    return "L"


def _opened(path: Path, mode: str) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except OSError as error:
        raise DataError(f"{path} is not a readable image", fix="remove or replace it") from error


def read_factory(spec: str) -> Raw:
    """Read the Dataset that `file.py:factory` returns; DataError where it returns none with a length."""
    dataset = call_factory(spec, error=DataError)
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"{spec} returned a {type(dataset).__name__}, not a Dataset with a length",
            fix="return an object with __len__ and __getitem__ giving (image, label)",
        )
    labelled = len(dataset) > 0 and isinstance(dataset[0], tuple | list) and len(dataset[0]) > 1
    return Raw(
        name=spec,
        length=len(dataset),
        image=lambda i: dataset[i][0] if isinstance(dataset[i], tuple | list) else dataset[i],
        label=(lambda i: int(dataset[i][1])) if labelled else None,
        class_names=tuple(map(str, getattr(dataset, "classes", ()))),
    )
