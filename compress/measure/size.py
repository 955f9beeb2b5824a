"""What a file takes on disk."""

from __future__ import annotations

from pathlib import Path

from compress.core.errors import UsageError


def file_bytes(path: Path) -> int:
    """Return the size of the file in bytes; UsageError where there is none."""
    if not path.is_file():
        raise UsageError(f"no file {path}")
    return path.stat().st_size
