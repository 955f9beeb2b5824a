"""`compress inspect`: which channels could leave, and why the others cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import cutting, images, reading, running, writing
from compress.cli.progress import progress_for
from compress.cli.records import values
from compress.core.choosing import Attention
from compress.core.progress import Progress

if TYPE_CHECKING:
    from compress.report.inspection import Inspection

HELP = """\
Channels that leave together are a group. Its MACs and parameters are those that vanish when all its channels \
leave. A layer between two groups vanishes with either, so shares add up to more than 100 %.

Examples

compress inspect resnet18.pt

compress inspect resnet18.pt --tree

compress inspect resnet18.pt --importance bn --svg coupling.svg

compress inspect resnet18.pt --importance reconstruction --calibration train/
"""


def inspect(
    *,
    checkpoint: reading.Checkpoint,
    attention: cutting.AttentionOption = Attention.HEADS,
    read: reading.Reading,
    tree: writing.Tree = False,
    importance: writing.Spread = None,
    calibration: images.Inputs = None,
    mean: images.Mean = None,
    std: images.Std = None,
    resize: images.Resize = None,
    json: writing.Json = None,
    dot: writing.Dot = None,
    svg: writing.Svg = None,
    speaking: running.Speaking,
) -> None:
    """Run the command."""
    with told_in_words(debug=speaking.debug):
        how = values(read) | {"attention": attention, "input_shape": checks.input_shape(read.input_shape)}
        checks.checkpoint(checkpoint)
        checks.outputs((), (json, dot, svg), inputs=(checkpoint,))
        progress = progress_for(quiet=speaking.quiet)
        looks = {"calibration": calibration, "mean": mean, "std": std, "resize": resize}
        facts = _found(checkpoint, how, importance, looks, progress)
        _write(facts, json, dot, svg, progress)
        if not speaking.quiet:
            from compress.report.groups import told
            from compress.report.terminal import console

            console().print(told(facts, tree=tree))


def _found(
    checkpoint: Path, how: dict[str, Any], importance: str | None, looks: dict[str, Any], progress: Progress
) -> Inspection:
    from compress.evaluation.judge import DataOptions
    from compress.importance import CRITERIA
    from compress.pipeline.inspecting import looked_into
    from compress.report.inspection import inspection

    if importance is not None:
        CRITERIA[importance]  # an unknown name is told before anything is loaded
    if looks["calibration"] is not None:
        importance = importance or "reconstruction"
    mean, std = checks.normalisation(looks["mean"], looks["std"])
    data = DataOptions(mean=mean, std=std, resize=looks["resize"])
    with progress.stage("load and analyse"):
        analysis, evidence = looked_into(checkpoint, calibration=looks["calibration"], data=data, **how)
    return inspection(checkpoint.name, analysis, importance=importance, evidence=evidence, progress=progress)


def _write(facts: Inspection, json: Path | None, dot: Path | None, svg: Path | None, progress: Progress) -> None:
    """Write the files that were asked for, each whole or not at all."""
    from compress.core.files import written_whole
    from compress.report import coupling
    from compress.report.inspectjson import inspection_json

    for path, text in ((json, inspection_json), (dot, coupling.dot)):
        if path is not None:
            with written_whole(path) as temporary:
                temporary.write_text(text(facts), encoding="utf-8")
    if svg is not None:
        from compress.report.picture import draw

        with progress.stage("draw"), written_whole(svg) as temporary:
            draw(facts, temporary)
