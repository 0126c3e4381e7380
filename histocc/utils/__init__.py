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
    "add_descriptions_to_dataframe": "histocc.utils.descriptions",
    "create_code_to_description_mapping": "histocc.utils.descriptions",
    "format_input_with_description": "histocc.utils.descriptions",
    "get_description": "histocc.utils.descriptions",
    "get_hisco_description": "histocc.utils.descriptions",
    "load_descriptions_from_csv": "histocc.utils.descriptions",
    "load_descriptions_from_dataframe": "histocc.utils.descriptions",
    "load_descriptions_from_dict": "histocc.utils.descriptions",
    "load_hisco_descriptions": "histocc.utils.descriptions",
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
