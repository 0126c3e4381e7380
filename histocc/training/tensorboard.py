"""Figures of evaluations for TensorBoard."""

from __future__ import annotations

import importlib.util
import math
import os
from numbers import Real

from histocc.errors import UsageError
from histocc.files import run_folder
from histocc.files.atomic import save_with_retry
from histocc.training.loop import Evaluation


def check_tensorboard() -> None:
    """Raise UsageError where the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard: pip install 'histocc[tensorboard]'")


class TensorBoardCallback:
    """Writes the numbers of each evaluation below ``tensorboard/`` in the save folder.

    Parameters
    ----------
    folder
        The save folder.
    step
        Where the run stands: figures of later steps, from a run that was resumed further back, are hidden.

    Raises
    ------
    UsageError
        The folder cannot be written to.
    """

    def __init__(self, folder: str | os.PathLike[str], step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = os.path.join(folder, run_folder.TENSORBOARD)
        try:
            self._writer = SummaryWriter(path, purge_step=step + 1)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error

    def __call__(self, evaluation: Evaluation) -> None:
        save_with_retry(lambda: self._write(evaluation), f"the figures of step {evaluation.step} for TensorBoard")

    def _write(self, evaluation: Evaluation) -> None:
        for name, value in evaluation.figures.items():
            if isinstance(value, Real) and name != "step" and math.isfinite(value):
                self._writer.add_scalar(name, value, evaluation.step)
        self._writer.flush()
