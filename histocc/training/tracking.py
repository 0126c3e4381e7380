"""Figures of a run on file and, where asked for, at Weights & Biases."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histocc.files import console, run_folder
from histocc.files.atomic import save_with_retry, write_atomically
from histocc.files.ordinary import IS_MISSING, fault_of_file
from histocc.files.torch_files import first_line
from histocc.training.loop import Evaluation
from histocc.training.reporting import LogFile

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


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
    run_id = _saved_id(id_file) or wandb.util.generate_id()
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
    text = f"{run_id}\n".encode()
    save_with_retry(lambda: write_atomically(id_file, lambda file: file.write(text)), str(id_file))
    return True


def _saved_id(path: Path) -> str | None:
    """The id of the run that is tracked already; None where there is none."""
    if fault_of_file(path) == IS_MISSING:
        return None
    try:
        run_id = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        run_id = ""
    if _ID.fullmatch(run_id):
        return run_id
    console.warn(f"{path} holds no id of a run at Weights & Biases; tracking begins again under a new one")
    return None


def wandb_log(step: int, row: Mapping[str, Any]) -> None:
    """Send one row of figures to the run that `wandb_init` started."""
    import wandb

    if wandb.run is not None:
        wandb.log(dict(row), step=step)


def wandb_callback(evaluation: Evaluation) -> None:
    """Send the figures of an evaluation to the run that `wandb_init` started; where that fails, a warning says so."""
    try:
        wandb_log(evaluation.step, evaluation.figures)
    except Exception as error:  # Whatever a service elsewhere does to its client, training goes on.
        console.warn(f"the figures of step {evaluation.step} did not reach Weights & Biases: {first_line(error)}")
