"""The errors and warnings of deltauq, and the checks of arguments that are a word or a number.

Each error says what is wrong, what was expected, what came, and what to do.
"""

from __future__ import annotations

import difflib
import importlib
import numbers
import os
import re
import reprlib
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = [
    "ArtifactError",
    "CheckpointWarning",
    "ConvergenceWarning",
    "CurvatureWarning",
    "DeltaUQError",
    "ForkedProcessError",
    "InvalidInputError",
    "MemoryLimitError",
    "MissingDependencyError",
    "NotFittedError",
    "NotPositiveDefiniteError",
    "NumericalError",
    "TunedL2Warning",
    "UnsupportedModelError",
    "WriteError",
    "as_list",
    "check_choice",
    "check_count",
    "check_flag",
    "check_path",
    "check_share",
    "is_number",
    "lying_in",
    "optional",
    "warn",
    "what_it_says",
]

#: A place in a traceback, and what stands for places that TensorFlow did not keep.
_PLACE = re.compile(r'^(\s*)(File ".*", line \d+|<stack traces unavailable>)')

#: What Keras writes around a message, and perhaps a traceback before it: colours, the arguments of
#: the call, whole configurations, where it was met.
_OF_KERAS = (
    (re.compile(r"\x1b\[\d*m"), ""),
    (re.compile(r"(Call a|A)rguments received by.*", re.DOTALL), ""),
    (re.compile(r".*Exception encountered: ", re.DOTALL), ""),
    (re.compile(r"Exception encountered when calling [^\n]*\n+"), ""),
)

#: What TensorFlow writes around a message: which of several it is, names of nodes and operations. A
#: batch that is quoted is cut to its brackets.
_OF_TENSORFLOW = (
    (re.compile(r".*root error\(s\) found\.\s*\(0\)\s*(.*?)\s*\(1\).*", re.DOTALL), r"\1"),
    (re.compile(r"\{\{function_node .*?\}\}\s*"), ""),
    (re.compile(r"\s*\[\[\{\{node .*?\}\}\]\]"), ""),
    (re.compile(r"\s*for '\{\{node [^']*'"), ""),
    (re.compile(r"\s*\[Op:[^\]]*\].*"), ""),
    (re.compile(r"\[\[.*\]\]", re.DOTALL), "[...]"),
)

#: Packages whose lines say nothing to a user: this one, those that call it for the user, and the
#: one that calls what is decorated.
_PASSED_OVER = frozenset({"deltauq", "keras", "tf_keras", "sklearn", "joblib", "contextlib"})


class DeltaUQError(Exception):
    """Base class of every error that deltauq raises on purpose.

    Args:
        problem: what is wrong, naming the argument or the object.
        expected: what would have been right.
        received: what came instead.
        remedy: what to do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        expected: str | None = None,
        received: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.expected, self.received, self.remedy = (
            problem,
            expected,
            received,
            remedy,
        )
        super().__init__(self._in_words())

    def lies_in(self, argument: str) -> None:
        """Say in which of several arguments the problem lies."""
        self.problem = f"in {argument}, {self.problem}"
        self.args = (self._in_words(),)

    def add_received(self, more: str) -> None:
        """Say more of what came, as only somebody knows through whom the error passes."""
        self.received = more if self.received is None else f"{self.received}; {more}"
        self.args = (self._in_words(),)

    def _in_words(self) -> str:
        """The error as it reads: the problem, and all that there is to say of it."""
        parts = [_sentence(self.problem)]
        parts += [
            f"{label}: {_sentence(text)}"
            for label, text in (
                ("Expected", self.expected),
                ("Received", self.received),
                ("What to do", self.remedy),
            )
            if text is not None
        ]
        return " ".join(parts)


def _sentence(text: str) -> str:
    """A text that ends in one full stop, or in the three of something left open."""
    return text if text.endswith("...") else text.rstrip(".") + "."


class InvalidInputError(DeltaUQError, ValueError):
    """An argument or a data set cannot be used."""


class UnsupportedModelError(DeltaUQError, ValueError):
    """The model cannot be turned into a differentiable function of its parameters."""


class ArtifactError(DeltaUQError, ValueError):
    """A saved file cannot be used: not there, damaged, newer, or of another model."""


class NotFittedError(DeltaUQError, AttributeError):
    """A result was asked for before `fit`."""


class NotPositiveDefiniteError(DeltaUQError, ArithmeticError):
    """The curvature plus L2 has no inverse that is a covariance."""


class NumericalError(DeltaUQError, ArithmeticError):
    """A result left the range that rounding can explain."""


class MemoryLimitError(DeltaUQError, MemoryError):
    """The work needs more memory than the machine or `memory_limit` leaves."""


class WriteError(DeltaUQError, OSError):
    """A file cannot be written: the disk is full, or the place refuses it."""


class ForkedProcessError(DeltaUQError, RuntimeError):
    """The process was forked from one in which TensorFlow ran, whose threads it has not got."""


class MissingDependencyError(DeltaUQError, ImportError):
    """An optional package is not installed."""


@contextmanager
def lying_in(argument: str) -> Iterator[None]:
    """Errors that are raised inside say in which argument they lie, such as "calibration=..."."""
    try:
        yield
    except DeltaUQError as error:
        error.lies_in(argument)
        raise


def optional(module: str, *, needed_by: str, extra: str | None = None) -> Any:
    """Import a module of an optional package, or say what to install.

    Args:
        module: its name.
        needed_by: what needs it, as the beginning of a sentence.
        extra: of deltauq, that has the package; None where deltauq itself asks for it.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingDependencyError(
            f"{needed_by}, and {package} is not installed",
            remedy=f"pip install {package}"
            + (
                f"; or install deltauq with its extra [{extra}], which has all that goes with it"
                if extra
                else ""
            ),
        ) from error


class CheckpointWarning(UserWarning):
    """A fit goes on from a checkpoint, part of which is of no use, or in other surroundings."""


class ConvergenceWarning(UserWarning):
    """An iteration stopped before its tolerance; the figures reached are in the message."""


class CurvatureWarning(UserWarning):
    """The loss has little curvature on the data, so that standard errors rest on something else."""


class TunedL2Warning(UserWarning):
    """The L2 rate was chosen after training: the weights minimise another cost."""


def warn(message: str, category: type[Warning]) -> None:
    """Warn, and name the user's line that this comes from, by way of Keras or scikit-learn too."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _package(frame) in _PASSED_OVER:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def what_it_says(error: BaseException) -> str:
    """What an error of TensorFlow, Keras or the code that they ran says happened, in a line.

    Their messages hold tracebacks, of the code that built a graph or that a graph called: what they
    say comes after the last place of those. It is for "Received" in errors of ours, which are
    raised from theirs, so that nothing is lost to who looks further.
    """
    text = str(error)
    for pattern, kept in _OF_KERAS:
        text = pattern.sub(kept, text)
    text = _after_tracebacks(text)
    for pattern, kept in _OF_TENSORFLOW:
        text = pattern.sub(kept, text)
    paragraph = text.strip().partition("\n\n")[0]
    return textwrap.shorten(paragraph, 400) or type(error).__name__


def _after_tracebacks(text: str) -> str:
    """What comes after the last place of a traceback, and the lines of code quoted from there."""
    lines = text.splitlines()
    places = [(k, place) for k, line in enumerate(lines) if (place := _PLACE.match(line))]
    if not places:
        return text
    last, place = places[-1]
    deeper = place[1] + " "
    after = [k for k in range(last + 1, len(lines)) if lines[k].strip()]
    first = next((k for k in after if not lines[k].startswith(deeper)), len(lines))
    return "\n".join(lines[first:])


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def check_choice(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of some words, and name the nearest.

    Raises:
        InvalidInputError: it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        alike = difflib.get_close_matches(str(value).lower(), choices, n=1)
        raise InvalidInputError(
            f"{argument}={reprlib.repr(value)} is not known",
            expected=f"one of {list(choices)}",
            received=reprlib.repr(value),
            remedy=f"write {argument}={alike[0]!r}" if alike else None,
        )


def check_flag(argument: str, value: Any) -> None:
    """Refuse a value that is neither True nor False, such as the text "no", which counts as true.

    Raises:
        InvalidInputError: it is none of them.
    """
    if type(value).__name__ not in ("bool", "bool_"):  # Python's, and NumPy's of any version
        raise InvalidInputError(
            f"{argument} is neither True nor False",
            expected="True or False",
            received=reprlib.repr(value),
        )


def check_count(argument: str, value: Any, *, at_least: int = 1, or_else: str = "") -> int:
    """Check that a value is a whole number, not too small, and give it as an int.

    Args:
        argument: its name.
        value: any integer; True is none.
        at_least: the smallest that is taken.
        or_else: what else the argument takes, as in ", or None".

    Raises:
        InvalidInputError: it is no such number.
    """
    is_whole = isinstance(value, numbers.Integral) and is_number(value)
    if not is_whole or value < at_least:
        raise InvalidInputError(
            f"{argument} is not a whole number >= {at_least}",
            expected=f"a whole number >= {at_least}{or_else}",
            received=reprlib.repr(value),
        )
    return int(value)


def is_number(value: Any) -> bool:
    """Whether a value is one real number, which neither True is nor what NumPy has for times."""
    kind = getattr(getattr(value, "dtype", None), "kind", "f")
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and kind in "fiu"


def as_list(value: Any) -> list[Any] | None:
    """Give the items of a list, tuple or array; None of text, a dict, or what has no items.

    Arrays and tensors of one number have the methods of those that have items, and no items.
    """
    if isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        return list(value)
    except TypeError:
        return None


def check_path(argument: str, value: Any) -> Path:
    """Check that a value can be the name of a file or folder, and give it as a path.

    Args:
        argument: its name.
        value: text, or a `pathlib.Path`.

    Raises:
        InvalidInputError: something else, or text that no name can hold.
    """
    name = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise InvalidInputError(
            f"{argument} is no path",
            expected="the name of a file or folder: text, or a pathlib.Path",
            received=reprlib.repr(value),
        )
    return Path(name)


def check_share(argument: str, value: Any, *, example: float) -> float:
    """Check that a value is a number strictly between 0 and 1, and give it as a float.

    Args:
        argument: its name.
        value: any real number.
        example: a good one, for the message.

    Raises:
        InvalidInputError: it is no such number.
    """
    if not is_number(value) or not 0 < float(value) < 1:
        raise InvalidInputError(
            f"{argument} is not between 0 and 1",
            expected=f"a number between 0 and 1, such as {example:g}",
            received=reprlib.repr(value),
        )
    return float(value)
