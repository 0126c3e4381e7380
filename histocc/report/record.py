"""The files of figures that a run leaves, read for its report and its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histocc.errors import UsageError
from histocc.files import entries, run_folder
from histocc.files.entries import Entries
from histocc.metrics.details import PREFIXES
from histocc.report.facts import read_json
from histocc.training.reporting import LogFile

_ADVICE = "Move the file away: the tables of this evaluation are then left out"


@dataclass(frozen=True)
class RunRecord:
    """The figures of a run.

    Attributes
    ----------
    folder
        Where they are.
    rows
        The evaluations, in order: column of ``logs.csv`` -> number, without what is undefined.
    """

    folder: Path
    rows: list[dict[str, float]]

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read a run's folder. Raises UsageError where its log is no table of figures by step."""
        log = LogFile(folder / run_folder.LOG)
        log.check()
        return cls(folder, [_numbers(row) for row in log.read()])

    def best_step(self) -> int | None:
        """The step of the best weights: the highest validation accuracy of a flat classifier, else the least loss."""
        found = [row for row in self.rows if "val_loss" in row]
        best = max(found, key=lambda row: (row.get("val_acc", 0.0), -row["val_loss"]), default=None)
        return None if best is None else int(best["step"])

    def details(self, step: int) -> dict[str, Any] | None:
        """All figures of an evaluation; None where there is no file of them.

        Raises
        ------
        UsageError
            The file cannot be read, or holds other things than figures.
        """
        path = self.folder / run_folder.METRICS / run_folder.metrics_file(step)
        values = read_json(path, _ADVICE)
        if values is None:
            return None
        found = Entries(path, _ADVICE)
        values = found.check("all of it", values, entries.mapping) or {}
        heads = found.take(values, "heads", entries.mapping_of(_head))
        mistakes = found.take(values, "mistakes", entries.optional(_mistakes))
        found.raise_if_any()
        return {"step": step, "heads": {head: heads[head] for head in PREFIXES if head in heads}, "mistakes": mistakes}

    def test(self) -> dict[str, Any] | None:
        """`rows` and `exact_set_acc`, in percent, of rows that played no part in the run; None where there are none.

        Raises
        ------
        UsageError
            The file cannot be read, or holds other things than figures.
        """
        path = self.folder / run_folder.TEST_FIGURES
        values = read_json(path, "Move the file away: it is then left out")
        if values is None:
            return None
        found = Entries(path, "Move the file away: it is then left out")
        values = found.check("all of it", values, entries.mapping) or {}
        step, rows = (found.take(values, name, entries.whole()) for name in ("step", "rows"))
        share = found.take(values, "test_acc", entries.number(0, 1))
        found.raise_if_any()
        # What an earlier, shorter run has left says nothing of these weights.
        steps = [row["step"] for row in self.rows[-1:]]
        return {"rows": rows, "exact_set_acc": 100 * share} if steps == [step] else None


def _numbers(row: Mapping[str, str | None]) -> dict[str, float]:
    numbers = {}
    for name, text in row.items():
        try:
            value = float(text or "nan")
        except ValueError:
            continue
        if value - value == 0:
            numbers[name] = value
    return numbers


_NUMBER = entries.optional(entries.number())
_FIGURES = ("exact_set_acc", "precision", "recall", "f1")


def _figures(value: Any) -> dict[str, Any]:
    own = entries.mapping(value)
    rows = entries.part("rows", own.get("rows"), entries.whole())
    return {"rows": rows, **{name: entries.part(name, own.get(name), _NUMBER) for name in _FIGURES}}


def _head(value: Any) -> dict[str, Any]:
    own = entries.mapping(value)
    groups = entries.mapping_of(_figures)
    kinds = ("by_description", "by_codes", "by_language")
    return {**_figures(own), **{kind: entries.part(kind, own.get(kind, {}), groups) for kind in kinds}}


def _mistakes(value: Any) -> dict[str, Any]:
    own = entries.mapping(value)

    def table(name: str, texts: tuple[str, ...], counts: tuple[str, ...]) -> list[dict[str, Any]]:
        def item(each: Any) -> dict[str, Any]:
            row = entries.mapping(each)
            return {
                **{text: entries.part(text, row.get(text), entries.text) for text in texts},
                **{count: entries.part(count, row.get(count), entries.whole()) for count in counts},
                "examples": entries.part("examples", row.get("examples"), entries.list_of(entries.text)),
            }

        return entries.part(name, own.get(name), entries.list_of(item))

    return {
        "head": entries.part("head", own.get("head"), entries.one_of(*PREFIXES)),
        "confused": table("confused", ("true", "predicted"), ("rows",)),
        "worst_covered": table("worst_covered", ("code",), ("rows", "found")),
    }


def record_in(folder: Path) -> RunRecord | None:
    """The record of a folder; None where it has no log, or one that is no table of figures."""
    try:
        record = RunRecord.read(folder)
    except UsageError:
        return None
    return record if record.rows else None
