"""Helpers under the names that training scripts import: metrics, masks, logs, states, preparation."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "create_mask": "histocc.layers.masking",
    "generate_square_subsequent_mask": "histocc.layers.masking",
    "Averager": "histocc.metrics.accuracies",
    "order_invariant_accuracy": "histocc.metrics.accuracies",
    "seq2seq_sequence_accuracy": "histocc.metrics.accuracies",
    "load_states": "histocc.runs.states",
    "update_summary": "histocc.training.tracking",
    "wandb_init": "histocc.training.tracking",
    "prepare_finetuning_data": "histocc.preparation",
    "setup_finetuning_datasets": "histocc.preparation",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Imported on first use: metrics need no data frames, preparation needs no model.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
