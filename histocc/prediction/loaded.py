"""A model that was loaded to be used, and what it can answer by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from histocc.errors import UsageError
from histocc.formatter import CodingSystem
from histocc.model_assets import CANINEOccupationClassifier, Seq2SeqOccCANINE
from histocc.stored_model import ModelSettings

FLAT, GREEDY, GREEDY_TOP_K, FULL = "flat", "greedy", "greedy-topk", "full"
# By kind of model, the method to choose first.
_METHODS = {"flat": (FLAT,), "mixer": (GREEDY, FLAT, FULL), "seq2seq": (GREEDY, FULL)}


@dataclass(frozen=True)
class LoadedModel:
    """A model that was loaded to be used.

    Parameters
    ----------
    model
        In evaluation mode, on the device that computes.
    system
        Its coding system; the codes are None where a decoder alone has no key.
    settings
        What it is made of, and how text comes into it.
    label
        What columns of codes are named after.
    source
        What messages call it.
    languages
        Those that it was trained on; None where that is not known.
    folder
        The folder it came from, for what stands beside a model; None for one from a hub.
    identity
        Tells one model from another, plain values.
    entries
        What else its file holds.
    published
        Whether it is one of the published models.
    thresholds_file
        Where its thresholds stand, if there are any; None where it comes from no file.
    assumed
        What its file does not say and is taken for granted, for people; None where it says everything.
    """

    model: CANINEOccupationClassifier | Seq2SeqOccCANINE
    system: CodingSystem
    settings: ModelSettings
    label: str
    source: str
    languages: frozenset[str] | None
    folder: Path | None
    identity: Any
    entries: Mapping[str, Any]
    published: bool = False
    thresholds_file: Path | None = None
    assumed: str | None = None

    @cached_property
    def weights_mark(self) -> str:
        """Tells these weights from others, wherever their file is: of all biases and norms, which each step changes."""
        digest = hashlib.sha256()
        for tensor in self.model.state_dict().values():
            if tensor.ndim == 1:
                digest.update(tensor.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    @property
    def methods(self) -> tuple[str, ...]:
        """What it can answer by, the one to choose first."""
        return _METHODS[self.settings.kind]

    def check(self, method: str, hint: str = "") -> None:
        """Raise UsageError where the model cannot answer by a method; `hint` names the flag or argument."""
        if method not in self.methods and not (method == GREEDY_TOP_K and self.settings.kind == "mixer"):
            has = {"flat": "a flat head alone", "seq2seq": "a decoder alone"}.get(self.settings.kind, "")
            raise UsageError(
                f"the model has {has}, which cannot answer by the method {method}: choose {' or '.join(self.methods)}"
                f"{hint and f' ({hint})'}"
            )
