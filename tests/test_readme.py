"""What the README tells people to type: every command can be read by the program, and names files that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from compress.cli.app import command

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
SET = dict(re.findall(r'\b(NET|SEEN|TEST)="?([^"\n ]+(?: --arch [^"\n]+)?)"?', BLOCKS))
LINES = [
    re.sub(r"\$(\w+)", lambda found: SET[found[1]], line[line.index("compress ") :])
    for line in BLOCKS.splitlines()
    if line.startswith(("compress ", "torchrun "))
]


def test_three_names_stand_for_the_files() -> None:
    """The network and both sets of images that the commands share lie in the repository."""
    assert set(SET) == {"NET", "SEEN", "TEST"}
    assert all((ROOT / text.split()[0]).is_file() for text in SET.values())
    assert len(LINES) > 40


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_read(line: str) -> None:
    """Its options exist, its values have their types, and what it reads of this repository is there."""
    words = shlex.split(line, comments=True)[1:]
    command(words[0]).make_context(words[0], words[1:])
    named = [word.partition(":")[0] for word in words if word.startswith("models/")]
    assert all((ROOT / path).is_file() for path in named)
