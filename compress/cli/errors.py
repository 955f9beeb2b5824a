"""How a command ends: 0 done, 1 our fault, 2 the input's fault, 130 interrupted."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from compress.core.errors import CompressError


@contextmanager
def told_in_words(*, debug: bool) -> Iterator[None]:
    """Turn what goes wrong inside into one message on stderr and an exit code; with `debug`, the traceback too."""
    try:
        yield
    except CompressError as error:
        _say(str(error), debug=debug)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        print(f"interrupted {error}".rstrip() + ": nothing was left half-written", file=sys.stderr)
        raise typer.Exit(130) from error
    except typer.Exit:
        raise
    except Exception as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        _say(f"unexpected {message[:300]}\n  fix: run again with --debug and report what it prints", debug=debug)
        raise typer.Exit(1) from error


def _say(message: str, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True)
    console.print("error:", style="bold red", end=" ", highlight=False)
    console.print(message, markup=False, highlight=False)
