"""Signals that end a run: the first asks for a save at the next step boundary, the second ends at once."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_ASKING = ("SIGTERM", "SIGUSR1", "SIGINT")


class StopSignals:
    """While active, SIGTERM, SIGUSR1 and Ctrl-C set `name` instead of ending the process; a second one ends it.

    Use as a context manager around training. Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has asked for the end."""
        return self.name is not None

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, as shells expect; 0 after a complete save for the scheduler's signals."""
        return 130 if self.name == "SIGINT" else 0

    def __enter__(self) -> StopSignals:
        for name in _ASKING:
            number = getattr(signal, name, None)
            if number is None:
                continue
            try:
                self._previous[number] = signal.signal(number, self._handle)
            except ValueError:
                return self
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.name is not None:
            sys.stderr.write("\nSecond signal: ending at once, without a save.\n")
            sys.stderr.flush()
            os._exit(128 + number)
        self.name = signal.Signals(number).name
