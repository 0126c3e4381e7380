"""Signals that end a run: the first asks for a save at the next step boundary, a later one ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType

from histocc.processes.distributed import environment_rank

_ASKING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
# A scheduler and the launcher under it may both pass on one request; nobody changes their mind within a second.
_SAME_REQUEST_SECONDS = 1.0


class StopSignals:
    """While active, SIGTERM, SIGUSR1 and Ctrl-C set `name` instead of ending the process; a later one ends it.

    Use as a context manager around training. Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._first = threading.Lock()
        self._since = float("inf")
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
        for number in _ASKING:
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
        # A lock, since a second signal may interrupt this handler anywhere.
        if self._first.acquire(blocking=False):
            self._since = time.monotonic()
            self.name = signal.Signals(number).name
            if environment_rank()[0] == 0:
                _say(f"{self.name}: ending at the next step, with a save. A second signal ends at once, without one.")
        elif time.monotonic() - self._since > _SAME_REQUEST_SECONDS:
            _say("Second signal: ending at once, without a save.")
            os._exit(128 + number)


def ignore_stop_signals(_worker: int = 0) -> None:
    """Leave stop signals to the process that trains; for workers that prepare its batches.

    Schedulers and terminals send signals to whole groups of processes, and the last batches must still arrive.
    """
    for number in _ASKING:
        signal.signal(number, signal.SIG_IGN)


def _say(text: str) -> None:
    # The handler may have interrupted a write to sys.stderr, which does not bear another one within.
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
