"""The demo's choices: a small encoder with random weights and settings that a laptop's CPU trains in minutes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from histocc.datasets import DATA_FOLDER
from histocc.model_assets import encoder_config, getModel

if TYPE_CHECKING:
    from transformers import CanineModel

DEMO_ENCODER = "demo"

MIXER_DEMO: dict[str, Any] = {
    "encoder": DEMO_ENCODER,
    "num_epochs": 32,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "max_len": 48,
    "log_interval": 100,
    "eval_interval": 400,
    "save_interval": 1000,
    "keep_checkpoints": 1,
}

FLAT_DEMO: dict[str, Any] = {
    "encoder": DEMO_ENCODER,
    "num_epochs": 40,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "max_len": 64,
}

# A random encoder learns nothing from the flat head for long, so the decoder gets a larger share than by default.
FINETUNE_DEMO: dict[str, Any] = MIXER_DEMO | {"num_epochs": 50, "seq2seq_weight": 0.5}


def demo_encoder_settings() -> dict[str, Any]:
    """Entries of the `CanineConfig` of the demo's encoder."""
    return json.loads((DATA_FOLDER / "demo_encoder.json").read_text(encoding="utf-8"))


def make_encoder(name: str, **changed: Any) -> CanineModel:
    """The encoder of ``--encoder``: a hub name or folder, or the demo's small one with random weights.

    Parameters
    ----------
    name
        As for `histocc.model_assets.getModel`, or 'demo'.
    changed
        Entries of the demo's configuration to replace.

    Raises
    ------
    UsageError
        The encoder cannot be had.
    """
    if name != DEMO_ENCODER:
        return getModel(name)
    from transformers import CanineModel

    return CanineModel(encoder_config({**demo_encoder_settings(), **changed}))
