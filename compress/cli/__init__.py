"""The command line, one thin file a command; nothing heavy is imported before the arguments have been checked."""

from __future__ import annotations

from compress.cli.app import app, main

__all__ = ["app", "main"]
