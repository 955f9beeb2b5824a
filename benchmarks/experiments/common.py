"""What the four experiments share: run `compress` commands, each once, and write what they found.

An experiment is a list of commands, as a user would type them. Each is printed before it runs and leaves a JSON file
in `build/experiments/`; where that file holds the result of the very same command, it is not run again, and a training
that was killed goes on where it was. So a script that was interrupted is simply started again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from compress.core.errors import DataError  # noqa: E402
from compress.core.files import written_whole  # noqa: E402

IMAGES = "Fashion-MNIST: 60,000 training and 10,000 test images"
TRAINS = ("--checkpoint-every", "200", "--resume")


def given(about: str, only: Sequence[str] = ()) -> argparse.Namespace:
    """Read the command line that all experiments share, and require the images before anything runs.

    `only` names parts that can be run alone.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", metavar="SOURCE", help="fashion-mnist or fashion-mnist:DIR")
    parser.add_argument("--table", action="store_true", help="only the tables again, from results/*.json")
    if only:
        parser.add_argument(
            "--only",
            action="append",
            choices=only,
            help="only this part, which is then all that the results hold; repeatable",
        )
    found = parser.parse_args()
    name, colon, folder = found.data.partition(":")
    found.data = f"{name}:{Path(folder).resolve()}" if colon else name
    os.chdir(ROOT)
    if not found.table:
        require_images(found.data)
    return found


def require_images(source: str) -> None:
    """Exit with what to do where the images are missing."""
    from compress.evaluation.data import look

    try:
        look(source)
    except DataError as error:
        print(f"{error.what}\n  this needs {IMAGES}", file=sys.stderr)
        print("  Debian: apt install dataset-fashion-mnist", file=sys.stderr)
        print(
            "  elsewhere: --data fashion-mnist:DIR, where DIR holds the four idx files, gzipped or not", file=sys.stderr
        )
        sys.exit(2)


@dataclass(slots=True)
class Experiment:
    """Commands of one experiment, in the order in which they run; `name` is also that of its folder and results."""

    name: str
    commands: list[str] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make the folder."""
        (ROOT / self.folder).mkdir(parents=True, exist_ok=True)
        RESULTS.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """Where checkpoints and the commands' own JSON files lie, relative to the repository's root."""
        return Path("build/experiments") / self.name

    def file(self, name: str) -> str:
        """A file of this experiment, relative to the repository's root."""
        return str(self.folder / name)

    def picture(self, name: str) -> str:
        """A picture among the results, relative to the repository's root."""
        return str((RESULTS / name).relative_to(ROOT))

    def run(self, name: str, *words: str, trains: bool = False) -> dict[str, Any]:
        """Run `compress WORDS --json build/experiments/.../NAME.json`, unless that was done; return what it found."""
        found = self.folder / f"{name}.json"
        argv = [*words, "--json", str(found)]
        self.commands.append(shlex.join(["compress", *argv]))
        print(f"$ {self.commands[-1]}", flush=True)
        if not done_before(ROOT / found, argv, outputs(words)):
            ended = called([*argv, *(TRAINS if trains else ())])
            if ended:
                print(f"stopped: that command ended with {ended}; start again to go on", file=sys.stderr)
                sys.exit(ended)
        else:
            print(f"  was done before: {found}", flush=True)
        self.last = json.loads((ROOT / found).read_text(encoding="utf-8"))
        return self.last

    def write(self, found: Mapping[str, Any], table: str) -> None:
        """Write the results as JSON and as Markdown, with the commands, and a page of all the commands' figures."""
        data = {
            "experiment": self.name,
            "command": f"python benchmarks/experiments/{self.name}.py",
            "commands": self.commands,
            "versions": self.last["versions"],
            "machine": self.last["machine"],
            **found,
        }
        with written_whole(RESULTS / f"{self.name}.json") as temporary:
            temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        write_table(self.name, table)
        for drawn in RESULTS.glob(f"{self.name}*.png"):
            lighten(drawn)
        runs = sorted(str(path.relative_to(ROOT)) for path in (ROOT / self.folder).glob("*.json"))
        page = self.file("report.html")
        called(["report", *runs, "--out", page, "--quiet"])
        print(f"wrote {RESULTS / self.name}.json, .md; every figure of every command: {page}")


def called(argv: Sequence[str]) -> int:
    """Run `compress ARGV` and return its exit code; Ctrl-C reaches the command too, which says what it saved."""
    running = subprocess.Popen([sys.executable, "-m", "compress", *argv], cwd=ROOT)
    try:
        return running.wait()
    except KeyboardInterrupt:
        return running.wait() or 130


def known(name: str) -> dict[str, Any]:
    """The committed results of an experiment."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def lighten(path: Path) -> None:
    """Write a picture again with 256 colours, which are enough for plots, where that makes it smaller."""
    from PIL import Image

    before = path.stat().st_size
    with Image.open(path) as image:
        if image.mode == "P":
            return
        light = image.convert("RGB").quantize(256)
    with written_whole(path) as temporary:
        light.save(temporary, optimize=True)
        if temporary.stat().st_size >= before:
            temporary.write_bytes(path.read_bytes())


def write_table(name: str, table: str) -> None:
    """Write the Markdown of an experiment."""
    with written_whole(RESULTS / f"{name}.md") as temporary:
        temporary.write_text(table.rstrip() + "\n", encoding="utf-8")


def outputs(words: Sequence[str]) -> list[Path]:
    """The files that a command writes besides its JSON file.

    >>> [str(path) for path in outputs(["maps", "net.pt", "--out", "m.png", "--top", "64"])]
    ['m.png']
    """
    writes = {"--out", "--save", "--plot"}
    return [Path(file) for option, file in pairwise(words) if option in writes]


def done_before(found: Path, argv: Sequence[str], files: Iterable[Path]) -> bool:
    """Whether `found` holds the result of the same command, and everything that it wrote is still there."""
    if not found.is_file() or not all((ROOT / file).is_file() for file in files):
        return False
    data = json.loads(found.read_text(encoding="utf-8"))
    earlier = data.get("argv") or shlex.split(data["command"])[1:]
    return same_command(earlier, argv)


def same_command(earlier: Sequence[str], argv: Sequence[str]) -> bool:
    """Whether two commands ask for the same; how often a training saves its state does not matter.

    >>> same_command(["train", "--resume", "--out", "a.pt"], ["train", "--out", "a.pt"])
    True
    >>> same_command(["train", "--epochs", "5", "--out", "a.pt"], ["train", "--epochs", "6", "--out", "a.pt"])
    False
    """
    return _asked(earlier) == _asked(argv)


def _asked(argv: Sequence[str]) -> list[str]:
    left, skip = [], False
    for word in argv:
        if not skip and word not in {"--resume", "--checkpoint-every"}:
            left.append(word)
        skip = word == "--checkpoint-every"
    return left


def points(fraction: float) -> str:
    """A fraction as percent with two digits.

    >>> points(0.93415)
    '93.42 %'
    """
    return f"{100 * fraction:.2f} %"


def within(curve: list[list[float]], original: float, loss: float) -> int:
    """The most channels that leave in a row while accuracy stays within `loss` of the original.

    >>> within([[1, 0.9], [2, 0.89], [3, 0.5], [4, 0.9]], 0.9, 0.01)
    2
    """
    most = 0
    for removed, top1 in curve:
        if top1 < original - loss - 1e-9:
            break
        most = int(removed)
    return most


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are numbers.

    >>> print(table(["net", "top-1"], [["a", 1]]))
    | net | top-1 |
    |---|--:|
    | a | 1 |
    """
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def page(*parts: str) -> str:
    """Paragraphs, tables and pictures with an empty line between them."""
    return "\n\n".join(parts)


def picture(name: str, about: str) -> str:
    """A picture that lies beside the page."""
    return f"![{about}]({name})"


def where(found: Mapping[str, Any]) -> str:
    """The machine and versions of a result, in words."""
    versions, machine = found["versions"], found["machine"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    return f"torch {versions['torch']}, Python {versions['python']}, {machine['cpu']}, {threads}"
