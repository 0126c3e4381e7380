"""The demo's choices: a small encoder with random weights and settings that a laptop's CPU trains in minutes."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from torch import nn

from histocc.datasets import DATA_FOLDER
from histocc.model_assets import encoder_config, getModel

if TYPE_CHECKING:
    from transformers import CanineModel

DEMO_ENCODER = "demo"

# Many small steps: a model this small and this new learns from their number more than from their size.
MIXER_DEMO: dict[str, Any] = {
    "encoder": DEMO_ENCODER,
    "num_epochs": 16,
    "batch_size": 16,
    "learning_rate": 2e-3,
    # The flat head's loss is a mean over 1,919 classes: without most of the weight it would hardly train the encoder.
    "seq2seq_weight": 0.005,
    "max_len": 48,
    "log_interval": 200,
    "eval_interval": 650,
    "save_interval": 1300,
    "keep_checkpoints": 1,
}

FLAT_DEMO: dict[str, Any] = {
    "encoder": DEMO_ENCODER,
    "num_epochs": 40,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "max_len": 64,
}

# With the few classes of the table the flat head's loss is larger.
FINETUNE_DEMO: dict[str, Any] = MIXER_DEMO | {"num_epochs": 30, "seq2seq_weight": 0.1}


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
        return getModel(name, flag="--encoder")
    from transformers import CanineModel

    return CanineModel(encoder_config({**demo_encoder_settings(), **changed}))


def begin_with_rare_classes(head: nn.Linear) -> None:
    """Have a flat head give each of its C classes a probability of about 1 / C at the start, in place.

    Nearly all answers to C classes are no. The quickest way for an encoder with random weights to say so is to push the
    pooled encoding (a tanh) to +-1 for every text, where it stays; if the head says so from the start, it need not.
    """
    nn.init.constant_(head.bias, -math.log(head.out_features))
