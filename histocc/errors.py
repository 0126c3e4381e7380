"""Errors that a user can act on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
_CLOSE = 0.7


def close_names(name: str, candidates: Iterable[object]) -> list[str]:
    """Those of the candidates that are spelt nearly like `name`, up to three, the closest first."""
    by_folded = {str(candidate).strip().casefold(): str(candidate) for candidate in candidates}
    return [by_folded[c] for c in difflib.get_close_matches(name.strip().casefold(), by_folded, n=3, cutoff=_CLOSE)]


def did_you_mean(name: str, candidates: Iterable[object]) -> str:
    """``" (did you mean 'x'?)"`` where some of the candidates are spelt nearly like `name`; else ''."""
    close = close_names(name, candidates)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


class UsageError(ValueError):
    """Bad usage or bad input; the message is complete: what is wrong, where, and what to do about it.

    The scripts print the message without a traceback and end with exit code 2.

    Attributes
    ----------
    problems
        The messages of several problems that the message lists; empty where it is about one.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class Problems:
    """Collects what is wrong, so that a user sees everything at once instead of one error per attempt."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.messages)

    def add(self, message: str) -> None:
        """Note one problem; the same text is kept once."""
        if message not in self.messages:
            self.messages.append(message)

    def run(self, action: Callable[..., T], *args: Any, **kwargs: Any) -> T | None:
        """Call `action` and return its result; where it raises a `UsageError`, note what it says and return None."""
        try:
            return action(*args, **kwargs)
        except UsageError as error:
            for message in error.problems or (str(error),):
                self.add(message)
            return None

    def raise_if_any(self) -> None:
        """Raise one `UsageError` with every problem noted so far; do nothing if there is none."""
        if len(self.messages) == 1:
            raise UsageError(self.messages[0])
        if self.messages:
            listed = "\n".join("  - " + m.replace("\n", "\n    ") for m in self.messages)
            raise UsageError(f"{len(self.messages)} problems:\n{listed}", self.messages)
