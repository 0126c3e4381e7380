"""The name of every file in a run's folder.

A run of ``train_mixer.py`` or ``finetune.py`` writes the checkpoints, the logs and its settings; ``finetune.py``
prepares its data in the same folder. ``train.py`` writes the same, and weights alone under the name of the model.
"""

from __future__ import annotations

import re
from typing import Final

# Checkpoints: all that a resumed run needs.
LAST_CHECKPOINT: Final = "last.bin"
BEST_CHECKPOINT: Final = "best.bin"
CHECKPOINT_SUFFIX: Final = ".bin"
_STEP_CHECKPOINT = re.compile(r"([0-9]+)\.bin")

# Figures.
LOG: Final = "logs.csv"
GROUP_LOG: Final = "logs_by_group.csv"
METRICS: Final = "metrics"
REPORT: Final = "report.html"
CARD: Final = "README.md"
RUN_FACTS: Final = "run.json"
BAD_BATCH: Final = "bad_batch.csv"
TEST_FIGURES: Final = "test.json"
# What the terminal showed, all sessions one after the other.
RUN_LOG: Final = "run.log"

# Settings.
ARGUMENTS: Final = "args.yaml"
WANDB_ID: Final = "wandb_id.txt"
TENSORBOARD: Final = "tensorboard"

# Thresholds for predictions, which an evaluation writes beside a model.
THRESHOLDS: Final = "thresholds.csv"

# Held while a run lives.
LOCK: Final = ".lock"

# Data: what preparation writes; a run whose codes are its own writes the key as well.
TRAINING_ROWS: Final = "data_train.csv"
VALIDATION_ROWS: Final = "data_val.csv"
KEY: Final = "key.csv"
PREPARED_FILES: Final = (TRAINING_ROWS, VALIDATION_ROWS, KEY)
CODE_FREQUENCIES: Final = "codes.csv"
REJECTED_ROWS: Final = "rejected_rows.csv"
PREPARATION_FACTS: Final = "preparation.json"


def step_checkpoint(step: int) -> str:
    """The name of the checkpoint of one optimizer step, ``<step>.bin``."""
    return f"{step}{CHECKPOINT_SUFFIX}"


def metrics_file(step: int) -> str:
    """The name, below `METRICS`, of the file with all figures of the evaluation at one optimizer step."""
    return f"{step}.json"


def step_of(name: str) -> int | None:
    """The optimizer step of which a file of this name is the checkpoint; None if the name is another file's."""
    found = _STEP_CHECKPOINT.fullmatch(name)
    return int(found[1]) if found else None


def newest_weights(model_name: str) -> str:
    """The name of the file in which ``train.py`` keeps the newest weights of a model, without anything else."""
    return f"Checkpoint{model_name}{CHECKPOINT_SUFFIX}"


def best_weights(model_name: str) -> str:
    """The name of the file in which ``train.py`` keeps the best weights of a model, without anything else."""
    return f"{model_name}{CHECKPOINT_SUFFIX}"


def history_figure(model_name: str) -> str:
    """The name of the image in which ``train.py`` draws losses and accuracies."""
    return f"{model_name}.png"
