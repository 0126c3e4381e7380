"""The demo's choices: a small encoder with random weights and settings that a laptop's CPU trains in minutes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DEMO_ENCODER = "demo"
_CONFIG = Path(__file__).parents[1] / "Data" / "demo_encoder.json"

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
    "epochs": 40,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "max_len": 64,
}

# A random encoder learns nothing from the flat head for long, so the decoder gets a larger share than by default.
FINETUNE_DEMO: dict[str, Any] = MIXER_DEMO | {"num_epochs": 50, "seq2seq_weight": 0.5}


def encoder_source(name: str) -> dict[str, Any]:
    """Model arguments for ``--encoder``: a hub name or folder, or the demo's small one with random weights."""
    if name != DEMO_ENCODER:
        return {"model_domain": name}
    from transformers import CanineConfig

    return {"model_domain": name, "encoder": CanineConfig(**json.loads(_CONFIG.read_text(encoding="utf-8")))}
