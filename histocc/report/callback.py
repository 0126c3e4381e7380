"""Report and card, drawn again after each evaluation."""

from __future__ import annotations

from pathlib import Path

from histocc.files import console, run_folder
from histocc.files.atomic import save_with_retry, write_atomically
from histocc.files.torch_files import first_line
from histocc.report.card import MARK, model_card
from histocc.report.facts import RunFacts
from histocc.report.folder_files import files_of_run
from histocc.report.page import report_page
from histocc.report.record import RunRecord
from histocc.training.loop import Evaluation


class ReportCallback:
    """Writes ``report.html`` and ``README.md`` into a run's folder, from the figures that stand there.

    What goes wrong is a warning, and training goes on.

    Parameters
    ----------
    facts
        What the run is.
    folder
        Its folder.
    """

    def __init__(self, facts: RunFacts, folder: Path) -> None:
        self._facts = facts
        self._folder = folder

    def __call__(self, evaluation: Evaluation) -> None:
        self.draw(evaluation.step)

    def draw(self, step: int) -> None:
        """Draw both from what is on file at `step`."""
        what = f"{run_folder.REPORT} and {run_folder.CARD} of step {step}"
        try:
            save_with_retry(lambda: draw(self._facts, self._folder), what)
        except Exception as error:  # A page is no reason to lose a run.
            console.warn(f"{what} could not be drawn: {first_line(error)}")


def draw(facts: RunFacts, folder: Path) -> None:
    """Write report and card of a run that has evaluated.

    Raises
    ------
    OSError
        A file cannot be written.
    UsageError
        A file of figures cannot be read.
    """
    record = RunRecord.read(folder)
    if not record.rows:
        return
    _write(folder / run_folder.REPORT, report_page(facts, record, record.details(int(record.rows[-1]["step"]))))
    card = folder / run_folder.CARD
    # A card that somebody has written stays.
    if not card.exists() or MARK in card.read_text("utf-8", "replace"):
        step = record.best_step()
        details = None if step is None else record.details(step)
        names = files_of_run(folder, facts.kind)
        _write(card, model_card(facts, details, names, str(folder), step=step, test=record.test()))


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode("utf-8", "replace")))
