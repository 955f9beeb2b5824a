"""What a network reaches on labelled images, and how far two networks agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from compress.core.errors import DataError, first_line
from compress.core.types import Accuracy
from compress.evaluation.data import Data

TOP = 5


def evaluate(
    module: nn.Module,
    data: Data,
    *,
    batch_size: int = 256,
    rows: int | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    limit: int | None = None,
) -> Accuracy:
    """Return accuracy and mean cross-entropy of `module`, whose output is (N, classes) logits, on `data`.

    `top5` counts the best min(5, classes) outputs. `per_class` has one fraction for every output, NaN for classes
    without an image. `limit` takes that many images, evenly spaced. `progress` is called with (images done, all).
    `rows` is the only batch size that the module takes, where there is one.
    The module is left in the mode and on the device it was in. Raises DataError where there are no labels, labels do
    not fit the outputs, or the module returns something other than finite (N, classes) logits.
    """
    if not data.labelled:
        raise DataError(f"{data.name} has no labels, so there is no accuracy", fix="give labelled data")
    chosen = _evenly(len(data), limit)
    loader = DataLoader(Subset(data.dataset, chosen), batch_size=batch_size)
    right_in_class = images_in_class = torch.zeros(0)
    loss, hits1, hits5, done = 0.0, 0, 0, 0
    with _inference(module, device):
        for images, labels in loader:
            targets = labels.to(device)
            logits = _logits(_run(module, images.to(device), rows), targets, data.name)
            best = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
            right = best == targets[:, None]
            classes = logits.shape[1]
            if done == 0:
                right_in_class, images_in_class = torch.zeros(classes), torch.zeros(classes)
            images_in_class += torch.bincount(targets, minlength=classes).cpu()
            right_in_class += torch.bincount(targets[right[:, 0]], minlength=classes).cpu()
            loss += float(F.cross_entropy(logits.double(), targets, reduction="sum"))
            hits1, hits5, done = hits1 + int(right[:, 0].sum()), hits5 + int(right.sum()), done + len(targets)
            if progress is not None:
                progress(done, len(chosen))
    return Accuracy(
        top1=hits1 / done,
        top5=hits5 / done,
        loss=loss / done,
        per_class=tuple((right_in_class / images_in_class).tolist()),
        images=done,
    )


def agreement(module: nn.Module, reference: nn.Module, batch: Tensor, *, rows: int | None = None) -> float:
    """Return on which fraction of `batch` both modules have their largest output (dimension 1) at the same place.

    `rows` is the only batch size that they take, where there is one. Raises DataError where one of them returns
    something other than a tensor.
    """
    ours, theirs = (classes_of(each, [batch], rows=rows) for each in (module, reference))
    return float((ours == theirs).double().mean())


def classes_of(module: nn.Module, batches: Iterable[Tensor], *, rows: int | None = None) -> Tensor:
    """Return where the module has its largest output (dimension 1) on all images of the batches, (images, *) int64.

    `rows` is the only batch size that it takes, where there is one. Raises DataError where it returns something other
    than a tensor.
    """
    with _inference(module, None):
        return torch.cat([_run(module, batch, rows).argmax(1) for batch in batches])


def _run(module: nn.Module, images: Tensor, rows: int | None) -> Tensor:
    """Run the module; `rows` at a time where it takes no other number, the last ones filled up with the last image."""
    if rows is not None and len(images) != rows:
        filled = torch.cat([images, images[-1:].expand(-len(images) % rows, *images.shape[1:])])
        return torch.cat([_run(module, part, None) for part in filled.split(rows)])[: len(images)]
    try:
        output = module(images.clone())  # it may write into them
    except RuntimeError as error:
        raise DataError(
            f"the network cannot be run on images of shape {tuple(images.shape)}: {first_line(error)}",
            fix="give data of the network's input shape, or another --input-shape",
        ) from error
    return _tensor(output)


def _tensor(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise DataError(
            f"the network returns a {type(output).__name__}, not one tensor of logits",
            fix="wrap it so that it returns the logits only",
        )
    return output


def _logits(output: Tensor, targets: Tensor, name: str) -> Tensor:
    if output.ndim != 2 or len(output) != len(targets):
        raise DataError(
            f"the network returns a tensor of shape {tuple(output.shape)}, not (images, classes)",
            fix="accuracy needs a classifier; leave --data out for other networks",
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= output.shape[1]:
        raise DataError(
            f"{name} has the label {high if low >= 0 else low}, but the network has {output.shape[1]} outputs "
            f"(0 to {output.shape[1] - 1})",
            fix="give the data set that the network was trained for",
        )
    if not bool(torch.isfinite(output).all()):
        raise DataError(f"the network gives NaN or infinite outputs on {name}", fix="check its weights and the data")
    return output


def logits_of(output: object, targets: Tensor | None, images: int, name: str) -> Tensor:
    """Return the output of a classifier, (images, classes); `targets` are the labels where there are some.

    Raises DataError where it is something else, or where labels do not fit.
    """
    return _logits(_tensor(output), torch.zeros(images, dtype=torch.int64) if targets is None else targets, name)


def _evenly(length: int, limit: int | None) -> list[int]:
    if limit is None or limit >= length:
        return list(range(length))
    if limit < 1:
        raise DataError(f"cannot evaluate on {limit} images", fix="take at least one")
    return [index * length // limit for index in range(limit)]


@contextmanager
def _inference(module: nn.Module, device: str | None) -> Iterator[None]:
    """Put `module` in eval mode and on `device`, and back; `eval()` is not called, as exported modules refuse it."""
    training = [part for part in module.modules() if part.training]
    home = next((value.device for value in module.parameters()), None)
    moved = device is not None and home is not None and home != torch.device(device)
    try:
        for part in training:
            part.training = False
        if moved:
            module.to(device)
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
        if moved:
            module.to(home)
