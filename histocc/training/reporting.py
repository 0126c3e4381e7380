"""What a run tells people: a header, a progress bar, lines for logs, and ``logs.csv``."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from histocc.errors import UsageError
from histocc.files import console
from histocc.files.atomic import write_atomically
from histocc.files.entries import MOST, shown
from histocc.files.ordinary import IS_MISSING, fault_of_file
from histocc.metrics.details import DECODED, FLAT, PREFIXES, TEACHER_FORCED, Details

LOG_COLUMNS = (
    "step",
    "batch_time",
    "batch_time_data",
    "train_loss",
    "val_loss",
    "val_loss_linear",
    "val_loss_seq2seq",
    "seq_acc",
    "token_acc",
    "flat_acc",
    "lr",
)
# Columns that count.
_COUNTS = ("step", "epoch")


class LogFile:
    """``logs.csv``: a header, then a row per evaluation; new columns go behind the ones that are there.

    Parameters
    ----------
    path
        The file; it is created with the first row.
    columns
        Columns that come first, in this order.
    """

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str] = LOG_COLUMNS) -> None:
        self.path = Path(path)
        self.columns = tuple(columns)

    def read(self) -> list[dict[str, str]]:
        """All rows, as text; empty where there is no file yet.

        Raises UsageError if the file is no table in CSV.
        """
        fault = fault_of_file(self.path)
        if fault == IS_MISSING:
            return []
        if fault is not None:
            raise UsageError(self._not_ours(fault))
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UsageError(self._not_ours(f"cannot be read ({error})")) from error
        for number, row in enumerate(rows, start=2):
            if None in row:
                raise UsageError(self._not_ours(f"has more values in row {number} than in its header"))
        return rows

    def numbers(self, *columns: str) -> list[tuple[float, ...]]:
        """Some columns of all rows as numbers.

        Raises UsageError naming row, column and value where there is none, and as `read` does.
        """
        return [tuple(self._number(i, row, name) for name in columns) for i, row in enumerate(self.read(), start=2)]

    def _number(self, number: int, row: Mapping[str, str], column: str) -> float:
        try:
            # A figure that is undefined stands as an empty cell.
            value = float("nan") if row[column] == "" and column not in _COUNTS else float(row[column])
        except (KeyError, TypeError, ValueError):
            value = None
        if value is None or (column in _COUNTS and not (0 <= value <= MOST and value.is_integer())):
            there = shown(row[column]) if row.get(column) is not None else "nothing"
            wanted = "whole number of steps" if column in _COUNTS else "number"
            raise UsageError(self._not_ours(f"has {there} in row {number}, column {column!r}, which is no {wanted}"))
        return value

    def _not_ours(self, fault: str) -> str:
        return (
            f"{self.path} is no table of figures by 'step' any more, so the run cannot add to it: it {fault}. "
            "Restore it, or move it away"
        )

    def check(self) -> None:
        """Raise UsageError if the file, where there is one, is no table of figures by step."""
        self.numbers("step")

    def append(self, *rows: Mapping[str, Any]) -> None:
        """Add rows; columns that the file lacks go behind the others. The file is replaced as a whole.

        NaN, which stands for a figure that is undefined, becomes an empty cell.

        Raises OSError if it cannot be written; what was there before stays.
        """
        old = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        header = next(csv.reader([old.partition("\n")[0]]), [])
        wanted = list(header) or [c for c in self.columns if any(c in row for row in rows)]
        wanted += [c for c in dict.fromkeys(c for row in rows for c in row) if c not in wanted]
        if len(wanted) > len(header):
            self._rewrite(wanted, [*self.read(), *rows])
            return
        new = io.StringIO()
        csv.DictWriter(new, wanted, restval="", lineterminator="\n").writerows(map(_cells, rows))
        self._replace(old + ("" if old.endswith("\n") else "\n") + new.getvalue())

    def drop_after(self, step: int) -> None:
        """Drop rows of steps beyond `step`: a resumed run writes them again.

        Raises UsageError if there is a row without a step, or the file cannot be written, and is then as it was.
        """
        steps = self.numbers("step")
        if all(each <= step for (each,) in steps):
            return
        rows = self.read()
        try:
            self._rewrite(list(rows[0]), [row for row, (each,) in zip(rows, steps) if each <= step])
        except OSError as error:
            raise UsageError(
                f"{self.path} has figures beyond step {step:,}, where the run goes on, and they cannot be taken out: "
                f"{error.strerror or error}. Nothing is lost; make room, and give the same command again"
            ) from error

    def set_aside(self) -> None:
        """Rename the file, so that a new run does not write into the figures of another; see `set_aside`."""
        set_aside(self.path)

    def has_step(self, step: int) -> bool:
        """Whether an evaluation at `step` is on file."""
        return any(each == step for (each,) in self.numbers("step"))

    def _rewrite(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_cells, rows))
        self._replace(text.getvalue())

    def _replace(self, text: str) -> None:
        write_atomically(self.path, lambda file: file.write(text.encode("utf-8")))


def set_aside(path: Path) -> None:
    """Give figures of another run another name (``logs.1.csv``), where there are some.

    Raises UsageError if they cannot be renamed.
    """
    if not path.exists():
        return
    names = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in itertools.count(1))
    free = next(name for name in names if not name.exists())
    try:
        path.rename(free)
    except OSError as error:
        raise UsageError(
            f"{path} has figures of another run and cannot be renamed: {error.strerror or error}. Move it "
            "away, or give another save folder"
        ) from error


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: "" if isinstance(value, float) and value != value else value for name, value in row.items()}


class Progress:
    """The bar of a run on a terminal; plain lines where the output goes to a file.

    Parameters
    ----------
    total_steps, initial
        Length of the run and where it starts, in optimizer steps.
    enabled
        False on all processes but the main one.
    """

    def __init__(self, total_steps: int, initial: int = 0, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.total_steps = total_steps
        self._on_terminal = console.is_watched()
        self._bar = tqdm(
            total=total_steps,
            initial=initial,
            unit="step",
            desc="training",
            dynamic_ncols=True,
            disable=not (enabled and self._on_terminal),
            smoothing=0.05,
        )

    def advance(self) -> None:
        """One optimizer step is done."""
        self._bar.update()

    def figures(self, step: int, figures: Mapping[str, float], seconds_left: float) -> None:
        """Show the newest figures: on the bar, or as a line where there is no terminal."""
        if not self.enabled:
            return
        shown = {name: _short(value) for name, value in figures.items()}
        self._bar.set_postfix(shown, refresh=False)
        if not self._on_terminal:
            listed = ", ".join(f"{name} {value}" for name, value in shown.items())
            console.say(f"step {step:,} of {self.total_steps:,}: {listed}, {duration(seconds_left)} left")

    def line(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self.enabled:
            with tqdm.external_write_mode():
                console.say(text)

    def close(self) -> None:
        """Take the bar down."""
        self._bar.close()


@contextlib.contextmanager
def evaluation_progress(batches: Iterable[Any], *, enabled: bool) -> Iterator[Iterable[Any]]:
    """The batches of an evaluation under a bar that goes away afterwards; no output where there is no terminal."""
    show = enabled and console.is_watched()
    with tqdm(batches, desc="evaluating", unit="batch", leave=False, dynamic_ncols=True, disable=not show) as bar:
        yield bar


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as people say them: '45 s', '12 min', '3 h 20 min', '2 d 4 h'."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    if hours < 36:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(days)} d {int(hours % 24)} h"


def header(facts: Mapping[str, Any]) -> str:
    """What is about to happen, as aligned lines, one per fact."""
    width = max(map(len, facts))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in shown_facts(facts).items())


def shown_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as people read them, without those that are None."""
    return {name: _fact(value) for name, value in facts.items() if value is not None}


def _fact(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


# What people call the heads, in the order in which they are shown: what a user would get comes first.
HEAD_NAMES = {DECODED: "decoded", TEACHER_FORCED: "teacher-forced", FLAT: "flat head"}


def evaluation_line(step: int, figures: Mapping[str, float], details: Details | None = None) -> str:
    """An evaluation in one line; accuracies in percent, '-' where one is undefined.

    The first head says of how many rows, and how many are right of texts that stand in the training data too and of
    those that do not, where `details` tell them apart.
    """
    parts = [f"val_loss {figures['val_loss']:.4g}"]
    apart = "" if details is None else _seen_and_unseen(details)
    for head, name in HEAD_NAMES.items():
        prefix = PREFIXES[head]
        if f"{prefix}exact_set_acc" in figures:
            exact, f1 = (_percent(figures[f"{prefix}{figure}"]) for figure in ("exact_set_acc", "f1"))
            rows = figures["decoded_rows" if head == DECODED else "rows"]
            of = f" of {rows:,} rows{apart}" if len(parts) == 1 else ""
            parts.append(f"{name}: exact sets {exact}{of}, F1 {f1}")
    return f"evaluation at step {step:,}: " + "; ".join(parts)


def _seen_and_unseen(details: Details) -> str:
    groups = next((found for head in HEAD_NAMES if (found := details.by_description(head))), {})
    shown = [f"{name} {_percent(groups[name]['exact_set_acc'])}" for name in ("seen", "unseen") if name in groups]
    return f" ({', '.join(shown)})" if len(shown) > 1 else ""


def _percent(value: float) -> str:
    return "-" if value != value else f"{value:.1f} %"
