"""Data on its way from tables to batches."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "OccDatasetMixerInMemMultipleFiles": "mixer_dataset",
    "Descriptions": "descriptions",
    "BatchIndex": "samplers",
    "EvalBatchSampler": "samplers",
    "TrainBatchSampler": "samplers",
    "evaluation_rows": "samplers",
    "Batch": "batch",
    "Workers": "loader",
    "make_loader": "loader",
    "check_files": "rows",
    "concat_string_canine": "encoding",
    "load_data": "flat",
    "labels_to_bin": "flat",
    "reference_loss": "flat",
    "resample": "flat",
    "subset_to_smaller": "flat",
    "train_test_val": "flat",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `import histocc` stays light.
    if name in _HOMES:
        return getattr(importlib.import_module(f"histocc.dataloader.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
