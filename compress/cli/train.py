"""`compress train`: an architecture and images go in, a checkpoint that can be cut comes out."""

from __future__ import annotations

import json as jsons
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import images, running, tuning, writing
from compress.cli.options import recipe as recipes
from compress.cli.progress import progress_for, speaks
from compress.cli.records import values
from compress.core.errors import UsageError

HELP = """\
The best epoch is found on a part of the training images; accuracy is reported on the test images.

Examples

Sparse training, as in network slimming; what leaves is then cut off:
compress train --arch models/vgg.py:vgg19 --data fashion-mnist --sparsity 1e-4 --out net.pt
compress slim net.pt --arch models/vgg.py:vgg19 --percent 0.7 --data fashion-mnist

A recipe by its name, shorter:
compress train --arch models/resnet_cifar.py:resnet18 --data cifar10 --recipe activation --epochs 20 --tail 10 \
--out net.pt

Go on after a kill; on two GPUs:
compress train --arch net.py:build --data images/ --out net.pt --resume
torchrun --nproc-per-node 2 -m compress train --arch net.py:build --data images/ --out net.pt
"""

READING, PANEL = "Network and images", "Output"

Arch = Annotated[
    str,
    typer.Option(
        "--arch",
        "-a",
        metavar="NAME",
        help="What to train: file.py:factory, a torchvision name, or timm:NAME. num_classes and in_channels are taken "
        "from the data where the factory has them.",
        rich_help_panel=READING,
        show_default=False,
    ),
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="NAME=VALUE", help="Keyword of the factory, as JSON. Repeatable.", rich_help_panel=READING
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        metavar="SOURCE",
        help="Labelled images: fashion-mnist, mnist, cifar10, cifar100 (each with :DIR), digits, a folder with one "
        "folder a class (under train/ and test/), an .npz with x and y, or file.py:factory.",
        rich_help_panel=READING,
        show_default=False,
    ),
]
Test = Annotated[
    str | None,
    typer.Option(
        "--test",
        metavar="SOURCE",
        help="Images to report accuracy on. Default: the test part of --data.",
        rich_help_panel=READING,
    ),
]
Start = Annotated[
    Path | None,
    typer.Option("--start", metavar="FILE", help="Begin with the weights of this checkpoint.", rich_help_panel=READING),
]
InputShape = Annotated[
    str | None,
    typer.Option("--input-shape", metavar="N,C,H,W", help="Default: the images' own.", rich_help_panel=READING),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE.pt",
        help="Write the checkpoint; the state of an unfinished training lies beside it, as FILE.pt.state.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]


def train(
    *,
    arch: Arch,
    data: Data,
    out: Out,
    option: Option = None,
    test: Test = None,
    start: Start = None,
    input_shape: InputShape = None,
    mean: images.Mean = None,
    std: images.Std = None,
    download: images.Download = False,
    recipe: recipes.Name = "plain",
    changed: recipes.Training,
    kept: tuning.Keeping,
    json: writing.Json = None,
    speaking: running.Speaking,
) -> None:
    """Run the command: the options are the fields of TrainOptions and of Recipe, and what the terminal cares for."""
    given = values(kept) | {"arch": arch, "data": data, "out": out, "test": test, "start": start, "download": download}
    given |= {"recipe": recipe, "input_shape": input_shape, "mean": mean, "std": std, "options": option, "json": json}
    given |= {"changes": {name: value for name, value in values(changed).items() if value is not None}}
    with told_in_words(debug=speaking.debug):
        _run(_checked(given), json, quiet=speaking.quiet or not speaks())


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of TrainOptions; raise what can be known to be wrong without importing torch."""
    from compress.recovery.training.recipe import RECIPES

    RECIPES[given["recipe"]].with_values(**given["changes"])
    mean, std = checks.normalisation(given["mean"], given["std"])
    inputs = tuple(path for path in (given["start"],) if path is not None)
    for path in inputs:
        checks.checkpoint(path)
    checks.outputs((), (given["out"], given["json"]), inputs=inputs)
    shape, options = checks.input_shape(given["input_shape"]), keywords(given["options"] or ())
    read = {"options": options, "input_shape": shape, "mean": mean, "std": std}
    return {name: value for name, value in given.items() if name != "json"} | read


def keywords(texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE, the value as JSON; UsageError where it is not that.

    >>> keywords(["width=32", "cfg=[8, 16]"])
    {'width': 32, 'cfg': [8, 16]}
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            if not equals or not name.isidentifier():
                raise ValueError
            found[name] = jsons.loads(value)
        except ValueError:
            raise UsageError(
                f"--option must be NAME=VALUE with a JSON value, got {text!r}",
                fix="""for example --option width=32 --option 'cfg=[64, "M", 128]'""",
            ) from None
    return found


def _run(fields: dict[str, Any], json: Path | None, *, quiet: bool) -> None:
    from compress.core.files import written_whole
    from compress.pipeline.train import TrainOptions, run_train
    from compress.recovery.training.recipe import RECIPES
    from compress.report.terminal import console
    from compress.report.training import epoch_line, told, train_json

    to = console()
    epochs = fields["changes"].get("epochs", RECIPES[fields["recipe"]].epochs)
    say = None if quiet else lambda epoch: to.print(epoch_line(epoch, epochs), highlight=False)
    report = run_train(TrainOptions(**fields), progress_for(quiet=quiet), say)
    if json is not None and speaks():
        with written_whole(json) as temporary:
            temporary.write_text(train_json(report), encoding="utf-8")
    if not quiet:
        to.print(told(report))
