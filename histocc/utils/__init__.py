"""Helpers under the names that training scripts import: metrics, masks, logs, states, preparation."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "create_mask": "histocc.utils.masking",
    "generate_square_subsequent_mask": "histocc.utils.masking",
    "Averager": "histocc.utils.metrics",
    "order_invariant_accuracy": "histocc.utils.metrics",
    "seq2seq_sequence_accuracy": "histocc.utils.metrics",
    "load_states": "histocc.utils.io",
    "update_summary": "histocc.utils.log_util",
    "wandb_init": "histocc.utils.log_util",
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
