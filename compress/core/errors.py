"""Errors a user can act on. Every one is a sentence: what was wrong, where, and what to do.

CompressError (exit code 2)
|- UsageError        an option or argument is out of range or unknown
|- CheckpointError   the file cannot be read, or fits no architecture
|- DataError         the data set cannot be read, or does not fit the network
|- PlanError         nothing can be cut, or a plan does not fit the network
|- TraceError        the network cannot be run or traced
|- TrainingError     a training came to nothing
|- ExactnessError    the cut network is not the masked original
`- ExportError       a file could not be written, or does not compute what the network computes
"""

from __future__ import annotations


class CompressError(Exception):
    """Base of every error that is the input's fault; the CLI prints it without a traceback."""

    exit_code = 2

    def __init__(self, what: str, *, fix: str | None = None) -> None:
        """Say `what` was wrong and where, and how to `fix` it."""
        super().__init__(what if fix is None else f"{what}\n  fix: {fix}")
        self.what = what
        self.fix = fix


class UsageError(CompressError):
    """An option is out of range or unknown."""


class CheckpointError(CompressError):
    """A checkpoint cannot be read, is not trusted, or fits no architecture."""


class DataError(CompressError):
    """A data set cannot be read, or does not fit the network."""


class PlanError(CompressError):
    """Nothing can be cut, or a plan does not fit the network."""


class TraceError(CompressError):
    """The network cannot be run on the given input, or cannot be traced."""


class TrainingError(CompressError):
    """The loss of a training is no longer a finite number."""


class ExactnessError(CompressError):
    """The cut network does not compute what the masked original computes."""


class ExportError(CompressError):
    """A file could not be written, or does not compute what the network computes."""


def first_line(error: BaseException) -> str:
    r"""Return what a library's error says first, without the advice below it; its class where it says nothing.

    >>> first_line(ValueError("\nno such layer\nsee the manual")), first_line(KeyError())
    ('no such layer', 'KeyError')
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def kind_and_line(error: BaseException) -> str:
    r"""Return the class of a library's error and what it says first.

    >>> kind_and_line(ValueError("no such layer\nsee the manual")), kind_and_line(KeyError())
    ('ValueError: no such layer', 'KeyError')
    """
    kind, line = type(error).__name__, first_line(error)
    return kind if line == kind else f"{kind}: {line}"
