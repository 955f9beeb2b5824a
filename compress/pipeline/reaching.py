"""What files reach on labelled images, each in its own runtime: the other axis of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from compress.core.errors import DataError, UsageError
from compress.core.progress import Progress
from compress.evaluation.metrics import evaluate
from compress.export.answers import Answers
from compress.pipeline.verify import VerifyOptions, data_for, opened_file


def top1_of(files: Sequence[VerifyOptions], told: Progress) -> tuple[float, ...]:
    """Return the top-1 accuracy, in [0, 1], of the first file of each of the options, on their data.

    Raises DataError where the images have no labels, and what opening a file raises.
    """
    opened = [opened_file(each.first, each) for each in files]
    shown = next((file.example for file in opened if file.example is not None), None)
    if shown is None:
        raise UsageError("no file tells the shape of its input", fix="add --input-shape, for example 1,3,224,224")
    data = data_for(opened, shown, files[0])
    if not data.labelled:
        raise DataError(f"{data.name} has no labels, so there is no accuracy", fix="give labelled images, or no --data")
    found = []
    for file in opened:
        with told.stage(f"accuracy, {file.name}", len(data)) as advance:
            found.append(evaluate(Answers(file.run, file.rows), data, progress=advance).top1)
    return tuple(found)
