"""A model with its coding system, to and from the plain values of a checkpoint, from which alone it is rebuilt."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from histocc.errors import UsageError
from histocc.files.tensors import weight_differences
from histocc.formatter import CodingSystem
from histocc.model_assets import (
    CANINEOccupationClassifier,
    Seq2SeqMixerOccCANINE,
    Seq2SeqMixerOccCANINE_hub,
    Seq2SeqOccCANINE,
    encoder_config,
    encoder_settings,
    longest_input,
)
from histocc.weights import read_state_dict

# Entries of a checkpoint.
SYSTEM_ENTRY, MODEL_ENTRY = "coding_system", "model_settings"
KINDS = ("mixer", "flat", "seq2seq")
_MOST_DIFFERENCES = 3


@dataclass(frozen=True)
class ModelSettings:
    """What a model is made of besides its weights and its coding system, and how text comes into it.

    Parameters
    ----------
    kind
        'mixer' (decoder and flat head), 'flat' or 'seq2seq' (a decoder alone).
    max_len
        L, the ids of a text at most, with which the model was trained.
    decoder_dim_feedforward
        Feed-forward width of the decoder; None is the hidden size.
    dropout
        Dropout of decoder and flat head.
    encoder
        Entries of the encoder's `CanineConfig` that differ from its defaults (those of CANINE-s).
    lowercase, ascii_only
        What was done to texts before training; False for all that this package trains.
    """

    kind: str
    max_len: int
    decoder_dim_feedforward: int | None = None
    dropout: float = 0.0
    encoder: Mapping[str, Any] = field(default_factory=dict)
    lowercase: bool = False
    ascii_only: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ModelSettings:
        """The settings that `to_plain` gave.

        Raises
        ------
        UsageError
            An entry is missing, of another type or out of its range.
        """
        if not isinstance(plain, Mapping):
            raise UsageError(f"a mapping is needed, not {plain!r:.80}")
        feedforward = plain.get("decoder_dim_feedforward")
        checks = {
            "kind": plain.get("kind") in KINDS,
            "max_len": _is_count(plain.get("max_len")),
            "decoder_dim_feedforward": feedforward is None or _is_count(feedforward),
            "dropout": isinstance(plain.get("dropout"), (int, float)) and 0 <= plain["dropout"] <= 1,
            "encoder": isinstance(plain.get("encoder"), Mapping) and all(isinstance(n, str) for n in plain["encoder"]),
            "lowercase": isinstance(plain.get("lowercase"), bool),
            "ascii_only": isinstance(plain.get("ascii_only"), bool),
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(f"the entry {name!r} of the model's settings is {plain.get(name)!r:.80}")
        return cls(**{name: plain[name] for name in checks if name in plain})


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2**20


@dataclass(frozen=True)
class StoredModel:
    """What a checkpoint holds of a model.

    Parameters
    ----------
    model
        The model with its weights, in evaluation mode, on the CPU.
    system
        Its coding system.
    settings
        What it is made of, and how text comes into it.
    entries
        All other entries of the checkpoint.
    """

    model: nn.Module
    system: CodingSystem
    settings: ModelSettings
    entries: Mapping[str, Any]


def describe_model(system: CodingSystem, settings: ModelSettings) -> dict[str, Any]:
    """The entries of a checkpoint from which `load_stored_model` rebuilds the model."""
    return {SYSTEM_ENTRY: system.to_plain(), MODEL_ENTRY: settings.to_plain()}


def describe_trained_mixer(model: nn.Module, system: CodingSystem, max_len: int) -> dict[str, Any]:
    """The entries of `describe_model` for a mixer model that was not made from settings.

    Parameters
    ----------
    model
        The model, without a wrapper.
    system
        Its coding system.
    max_len
        L, the ids of a text in training.

    Returns
    -------
    dict[str, Any]
        Empty where the model is of a class of the user's own, or another one than the settings would rebuild.
    """
    if type(model) not in (Seq2SeqMixerOccCANINE, Seq2SeqMixerOccCANINE_hub):
        return {}
    try:
        encoder = encoder_settings(model.encoder.config)
        settings = ModelSettings("mixer", max_len, model.decoder_dim_feedforward, model.dropout_rate, encoder)
        with torch.device("meta"):  # shapes alone
            rebuilt = build_model(system, settings)
    except UsageError:
        return {}
    return {} if weight_differences(rebuilt, model.state_dict()) else describe_model(system, settings)


def load_stored_model(path: str | os.PathLike[str]) -> StoredModel:
    """Rebuild the model of a checkpoint of this package, or of an exported folder, from it alone.

    Raises
    ------
    UsageError
        The file is missing, damaged, holds pickled objects, does not say what model it holds (it is an older file, or
        one of the original), or its weights do not fit what it says.
    """
    weights, entries = read_state_dict(path)
    described = Path(path) / "config.json"
    if described.is_file():
        # An exported folder, whose weights are without other entries.
        entries = read_description(described)
    if not describes_model(entries):
        raise UsageError(
            f"{path} does not say which coding system and encoder it has: it is a file of the original or of an older "
            f"version. Resume its run once with the flags that it was started with, which saves them, or build the "
            f"model yourself"
        )
    return rebuild_model(weights, entries, str(path))


def describes_model(entries: Mapping[str, Any]) -> bool:
    """Whether entries of a checkpoint say which model it holds."""
    return SYSTEM_ENTRY in entries and MODEL_ENTRY in entries


def rebuild_model(weights: Mapping[str, Tensor], entries: Mapping[str, Any], source: str) -> StoredModel:
    """The model that some weights and the entries beside them make; `source` is what messages call them.

    Raises
    ------
    UsageError
        The entries describe no model, or one that the weights do not fit.
    """
    try:
        system = CodingSystem.from_plain(entries[SYSTEM_ENTRY])
        settings = ModelSettings.from_plain(entries[MODEL_ENTRY])
        with torch.device("meta"):  # Weights of another size are refused before memory is taken for them.
            differences = weight_differences(build_model(system, settings), weights)
        if differences:
            raise UsageError("; ".join(differences[:_MOST_DIFFERENCES]))
        model = build_model(system, settings)
        model.load_state_dict(weights)
    except (UsageError, RuntimeError) as error:
        raise UsageError(f"{source} does not hold the model that it describes: {error}") from error
    others = {name: entry for name, entry in entries.items() if name not in (SYSTEM_ENTRY, MODEL_ENTRY)}
    return StoredModel(model.eval(), system, settings, others)


def read_description(path: Path) -> dict[str, Any]:
    """The entries of an exported model's ``config.json``.

    Raises
    ------
    UsageError
        The file cannot be read or is no mapping.
    """
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as the description of a model: {error}") from error
    if not isinstance(entries, dict):
        raise UsageError(f"{path} is no description of a model: it holds {entries!r:.80}")
    return entries


def build_model(system: CodingSystem, settings: ModelSettings) -> nn.Module:
    """A model with random weights, as the settings say; nothing is fetched.

    Raises
    ------
    UsageError
        The encoder's entries make no encoder, or not one that fits.
    """
    encoder = encoder_config(settings.encoder)
    if settings.max_len > longest_input(encoder):
        raise UsageError(f"max_len is {settings.max_len}, but its encoder has {longest_input(encoder)} positions")
    if settings.kind == "flat":
        return CANINEOccupationClassifier(system.num_classes, dropout_rate=settings.dropout, encoder=encoder)
    decoder = {"dropout_rate": settings.dropout, "decoder_dim_feedforward": settings.decoder_dim_feedforward}
    tokens = system.formatter.num_classes
    if settings.kind == "seq2seq":
        return Seq2SeqOccCANINE("", tokens, encoder=encoder, **decoder)
    return Seq2SeqMixerOccCANINE("", tokens, system.num_classes, encoder=encoder, **decoder)
