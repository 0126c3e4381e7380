"""Train CANINE to turn historical occupational descriptions into codes: HISCO, OCC1950, PST or a system of your own."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "1.0.0"

_HOMES = {
    "CANINEOccupationClassifier": "model_assets",
    "CANINEOccupationClassifier_hub": "model_assets",
    "Seq2SeqOccCANINE": "model_assets",
    "Seq2SeqMixerOccCANINE": "model_assets",
    "load_model_from_checkpoint": "model_assets",
    "load_tokenizer": "model_assets",
    "trainer_loop": "trainer",
    "load_data": "dataloader",
    "OccDatasetMixerInMemMultipleFiles": "dataloader",
    "Seq2SeqCrossEntropy": "loss",
    "OrderInvariantSeq2SeqCrossEntropy": "loss",
    "BlockOrderInvariantLoss": "loss",
    "LossMixer": "loss",
    "DATASETS": "datasets",
    "OccCANINE": "prediction_assets",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Names are imported on first use: `import histocc` alone costs next to nothing.
    if name in _HOMES:
        return getattr(importlib.import_module(f"histocc.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
