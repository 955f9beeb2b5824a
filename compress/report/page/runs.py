"""The JSON of earlier commands, read back: what was run, with which figures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Run:
    """One JSON file: `kind` is the command that wrote it, `data` all that it wrote; `key` is unique on a page."""

    key: str
    name: str
    kind: str
    data: Mapping[str, Any]

    @property
    def command(self) -> str:
        """The command line that made it, "" where it is not recorded."""
        if argv := self.data.get("argv"):
            return shlex.join(["compress", *map(str, argv)])
        told = str(self.data.get("command") or "")
        return told if " " in told else ""


def read_runs(paths: Sequence[Path], known: Sequence[str]) -> tuple[Run, ...]:
    """Read the files; UsageError for one that is not there, is no JSON, or whose command is none of `known`."""
    runs = []
    for number, path in enumerate(paths):
        data = _object(path)
        kind = kind_of(data)
        if kind not in known:
            raise UsageError(
                f"{path} is not the JSON of a command that a report can show ({kind or 'no format is named'})",
                fix=f"give files that --json of one of these wrote: {', '.join(sorted(known))}",
            )
        runs.append(Run(f"run{number + 1}", path.stem, kind, data))
    return tuple(runs)


def kind_of(data: Mapping[str, Any]) -> str:
    """Return the command that wrote the file.

    >>> kind_of({"format": "compress-report-1"}), kind_of({"format": "compress-sweep-1"}), kind_of({"command": "maps"})
    ('slim', 'sweep', 'maps')
    """
    named = str(data.get("format", ""))
    if named.startswith("compress-"):
        kind = named.split("-")[1]
        return "slim" if kind == "report" else kind
    return str(data.get("command", "")).split(" ")[0]


def _object(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}", fix="give a file that --json of a command wrote") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} holds no JSON object", fix="give a file that --json of a command wrote")
    return data
