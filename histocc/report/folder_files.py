"""What each file of a run's folder is, in a line."""

from __future__ import annotations

import re
from pathlib import Path

from histocc.files import run_folder

# Name, or pattern of names -> what people see in its place, and what it is.
_FILES: tuple[tuple[str, str, str], ...] = (
    (r"model\.safetensors", "model.safetensors", "the weights"),
    (r"config\.json", "config.json", "what the model is made of; `OccCANINE` and `histocc predict` read it"),
    (
        r"best\.bin",
        run_folder.BEST_CHECKPOINT,
        "the state of the lowest `val_loss` so far; `histocc predict` uses it",
    ),
    (r"last\.bin", run_folder.LAST_CHECKPOINT, "the newest state, from which the same command resumes the run"),
    (r"\d+\.bin", "<step>.bin", "the state at that step"),
    (r"Checkpoint.+\.bin", "Checkpoint<name>.bin", "the newest weights alone"),
    (r".+\.bin", "<name>.bin", "the best weights alone; `histocc predict` uses them"),
    (r".+_tokenizer", "<name>_tokenizer", "the tokenizer"),
    (r"README\.md", run_folder.CARD, "this card"),
    (r"report\.html", run_folder.REPORT, "learning curves, tables and mistakes, for a browser"),
    (r"logs\.csv", run_folder.LOG, "figures, a row for each evaluation"),
    (
        r"logs_by_group\.csv",
        run_folder.GROUP_LOG,
        "the same by language, number of codes, text seen in training",
    ),
    (r"metrics", f"{run_folder.METRICS}/<step>.json", "all figures of an evaluation, with the mistakes"),
    (r"(logs|logs_by_group|metrics)\.\d+(\.csv)?", "logs.<n>.csv, metrics.<n>", "figures of an earlier run"),
    (r"test\.json", run_folder.TEST_FIGURES, "figures on the rows set aside for testing"),
    (r".+\.png", "<name>.png", "losses and accuracies, drawn"),
    (r"args\.yaml", run_folder.ARGUMENTS, "all flags with the values in force"),
    (r"run\.json", run_folder.RUN_FACTS, "command, data and versions of the run, which this card tells"),
    (r"run\.log", run_folder.RUN_LOG, "what the terminal showed, all sessions one after the other"),
    (r"key\.csv", run_folder.KEY, "the codes and their classes"),
    (r"thresholds\.csv", run_folder.THRESHOLDS, "how sure the model must be of a code, from `histocc evaluate`"),
    (r"data_train\.csv", run_folder.TRAINING_ROWS, "the rows that train"),
    (r"data_val\.csv", run_folder.VALIDATION_ROWS, "the rows that are evaluated"),
    (r"codes\.csv", run_folder.CODE_FREQUENCIES, "how often each code occurs, with examples"),
    (r"rejected_rows\.csv", run_folder.REJECTED_ROWS, "rows of the table that could not be used, with the reason"),
    (r"preparation\.json", run_folder.PREPARATION_FACTS, "how the table was prepared"),
    (r"bad_batch\.csv", run_folder.BAD_BATCH, "the rows of a step whose loss was no number"),
    (r"tensorboard", f"{run_folder.TENSORBOARD}/", "figures for TensorBoard"),
    (r"wandb|wandb_id\.txt", "wandb/, wandb_id.txt", "tracking at Weights & Biases"),
)


def describe_files(names: set[str]) -> list[tuple[str, str]]:
    """Name and description of each file of a folder that this package writes, the most important first."""
    known: dict[str, str] = {}
    for name in names:
        for pattern, shown, what in _FILES:
            if re.fullmatch(pattern, name):
                known[shown] = what
                break
    return [(shown, known[shown]) for _, shown, _ in _FILES if shown in known]


def files_of_run(folder: Path, kind: str) -> set[str]:
    """The names in the folder of a run, with those that a run of this kind ends with."""
    ends_with = {run_folder.LAST_CHECKPOINT, run_folder.step_checkpoint(0), run_folder.CARD, run_folder.REPORT}
    if kind == "mixer":
        ends_with.add(run_folder.BEST_CHECKPOINT)
    return ends_with | {path.name for path in folder.iterdir()}
