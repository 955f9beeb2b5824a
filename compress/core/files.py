"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.core.errors import UsageError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on any error.

    Raises UsageError where the folder does not exist or cannot be written to.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", fix="name a file")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}", fix="choose a folder that exists and that you may write to"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_together(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder beside `path`; move whatever was written there on success.

    For files that name others beside them, such as ONNX with its weights outside. On any error nothing is left.
    Raises UsageError where the folder does not exist or cannot be written to.
    """
    require_writable(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        # The file itself comes last: whoever sees it finds what it names.
        for made in sorted(Path(folder).iterdir(), key=lambda file: file == temporary):
            made.replace(path.parent / made.name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_writable(path: Path) -> None:
    """Raise UsageError now, before any work is done, if `path` cannot be written later."""
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder", fix="name a file")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist", fix="create it first")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"cannot write {path}: the folder {path.parent} is read-only", fix="choose another folder")
