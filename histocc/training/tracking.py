"""Figures of a run on file and, where asked for, at Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histocc.files import console, run_folder
from histocc.training.loop import Evaluation
from histocc.training.reporting import LogFile


def update_summary(
    step: int, metrics: Mapping[str, Any], filename: str | os.PathLike[str], log_wandb: bool = False
) -> None:
    """Append `step` and `metrics` as a row to the CSV file `filename`, and send them to W&B where `log_wandb`."""
    row = {"step": step, **metrics}
    LogFile(filename).append(row)
    if log_wandb:
        wandb_log(step, row)


def wandb_init(
    output_dir: str | os.PathLike[str],
    project: str,
    name: str | None = None,
    resume: str = "allow",
    config: Any = None,
    mode: str = "online",
) -> bool:
    """Start tracking at Weights & Biases, continuing the run whose id stands in ``output_dir/wandb_id.txt``.

    Without the package, an account or a network, training goes on without or offline, and one line says so.

    Parameters
    ----------
    output_dir
        The save folder.
    project, name, resume, mode
        As for ``wandb.init``.
    config
        Settings to show with the run, a mapping or an object with attributes.

    Returns
    -------
    bool
        Whether figures are tracked at all.
    """
    try:
        import wandb
    except ImportError:
        console.warn(
            "--log-wandb is given but wandb is not installed (pip install 'histocc[wandb]'); "
            "the figures go to logs.csv only"
        )
        return False
    id_file = Path(output_dir) / run_folder.WANDB_ID
    run_id = id_file.read_text().strip() if id_file.exists() else wandb.util.generate_id()
    options = {
        "project": project,
        "name": name,
        "id": run_id,
        "resume": resume,
        "config": dict(config or {}) if isinstance(config, Mapping | None) else vars(config),
        "dir": str(output_dir),
    }
    try:
        wandb.init(**options, mode=mode)
    except (wandb.errors.Error, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        console.warn(f"Weights & Biases cannot be reached ({reason}); tracking goes on offline")
        wandb.init(**options, mode="offline")
    id_file.write_text(run_id + "\n")
    return True


def wandb_log(step: int, row: Mapping[str, Any]) -> None:
    """Send one row of figures to the run that `wandb_init` started."""
    import wandb

    if wandb.run is not None:
        wandb.log(dict(row), step=step)


def wandb_callback(evaluation: Evaluation) -> None:
    """Send the figures of an evaluation to the run that `wandb_init` started."""
    wandb_log(evaluation.step, evaluation.figures)
