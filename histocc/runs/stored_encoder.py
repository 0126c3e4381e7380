"""The encoder of a run that gets all its weights from a checkpoint, so that nothing has to be fetched for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from histocc.errors import UsageError
from histocc.model_assets import encoder_config
from histocc.runs.options import DEFAULT_ENCODER, RunOptions
from histocc.stored_model import MODEL_ENTRY, ModelSettings
from histocc.training.checkpoint_schema import Checkpoint
from histocc.weights import InitialWeights

if TYPE_CHECKING:
    from transformers import CanineModel


@dataclass(frozen=True)
class StoredEncoder:
    """An encoder with random weights, which are to be those of a checkpoint.

    Attributes
    ----------
    encoder
        The encoder.
    source
        The checkpoint.
    max_len
        L, the length that it was trained with; None where the checkpoint does not say.
    """

    encoder: CanineModel
    source: str
    max_len: int | None


def stored_encoder(
    options: RunOptions, checkpoint: Checkpoint | None, weights: InitialWeights | None
) -> StoredEncoder | None:
    """The encoder that the checkpoint of a resumed run, or the initial weights, say they have.

    Initial weights that say nothing, as those of the original, have that of CANINE-s if they fit it.

    Returns
    -------
    StoredEncoder | None
        None where ``--encoder`` names another than the default, or where nothing is known.

    Raises
    ------
    UsageError
        What is said about the encoder makes none.
    """
    from transformers import CanineConfig, CanineModel

    if options.encoder != DEFAULT_ENCODER:
        return None
    if weights is None:
        if checkpoint is None or checkpoint.model_settings is None:
            return None
        source, described = str(checkpoint.source), checkpoint.model_settings
    else:
        source, described = weights.source, weights.extras.get(MODEL_ENTRY)
    if described is None:
        with torch.device("meta"):  # shapes alone
            fits = weights.has_encoder_of(CanineModel(CanineConfig()))
        return StoredEncoder(CanineModel(CanineConfig()), source, None) if fits else None
    try:
        settings = ModelSettings.from_plain(described)
        config = encoder_config(settings.encoder)
    except UsageError as error:
        raise UsageError(f"{source} does not say which encoder it has: {error}") from error
    return StoredEncoder(CanineModel(config), source, settings.max_len)
