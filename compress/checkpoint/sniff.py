"""What a file is, seen from its first bytes and its table of contents; its suffix is not asked."""

from __future__ import annotations

import zipfile
from enum import Enum, auto
from pathlib import Path

from compress.core.errors import CheckpointError

_SAFETENSORS_HEADER_LIMIT = 100_000_000


class Format(Enum):
    """The layouts a checkpoint can have."""

    PICKLE = auto()  # written by torch.save: a state dict, one of our saved files, or a whole module
    SAFETENSORS = auto()
    TORCHSCRIPT = auto()
    EXPORTED = auto()


def sniff(path: Path) -> Format:
    """Return the layout of the file at `path`.

    Raises CheckpointError where it cannot be opened, is empty or cut short, or is none of the known layouts.
    """
    head = _head(path)
    if head[:4] == b"PK\x03\x04":
        return _inside_zip(path)
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < _SAFETENSORS_HEADER_LIMIT:
        return Format.SAFETENSORS
    if head[:1] == b"\x80":
        return Format.PICKLE
    raise CheckpointError(
        f"{path} is not a checkpoint: it starts with {head[:8]!r}, which is neither torch.save, safetensors, "
        "TorchScript nor torch.export",
        fix="give a file written by torch.save, safetensors, torch.jit.save or torch.export.save",
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", fix="check the path") from error
    except IsADirectoryError as error:
        raise CheckpointError(f"{path} is a folder", fix="name the checkpoint file in it") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", fix="check its permissions") from error
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes)", fix="save or download it again")
    return head


def _inside_zip(path: Path) -> Format:
    """Tell the three archives that torch writes apart by the members only they have."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(
            f"{path} is cut short: it begins as a torch archive but its end is missing ({error})",
            fix="save or download it again",
        ) from error
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "serialized_exported_program.json" in inner or any(
        name.startswith("models/") and name.endswith(".json") for name in inner
    ):
        return Format.EXPORTED
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return Format.TORCHSCRIPT
    if "data.pkl" in inner:
        return Format.PICKLE
    raise CheckpointError(
        f"{path} is a zip file, but not one that torch wrote (it holds {', '.join(names[:3]) or 'nothing'})",
        fix="unpack it, or save the network again",
    )
