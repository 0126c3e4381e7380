"""Loading a model to use it: from a run folder, a checkpoint, an exported folder or the hub."""

from __future__ import annotations

from pathlib import Path

import torch

from histocc.errors import UsageError
from histocc.files import run_folder
from histocc.prediction.coders import LoadedModel, identity_of
from histocc.stored_model import load_stored_model
from histocc.weights import read_state_dict


def load_model(name: str, device: torch.device, *, encoder: str | None = None) -> LoadedModel:
    """Load a model.

    Parameters
    ----------
    name
        A run folder, a checkpoint file, an exported folder, or the name of a published model.
    device
        Where it is to compute.
    encoder
        The encoder of a file that does not say which it has: a folder.

    Raises
    ------
    UsageError
        There is no such model, or its file is damaged, holds pickled objects or does not say what it is.
    """
    path = find_checkpoint(Path(name))
    stored = load_stored_model(path)
    best = stored.entries.get("best_weights")
    if path.name == run_folder.LAST_CHECKPOINT and isinstance(best, str) and path.with_name(Path(best).name).is_file():
        # Of a run of train.py the best weights lie beside its last state, without anything else.
        path = path.with_name(Path(best).name)
        weights, _ = read_state_dict(path)
        stored.model.load_state_dict(weights)
    languages = stored.entries.get("languages")
    return LoadedModel(
        stored.model.to(device),
        stored.system,
        stored.settings,
        None if languages is None else frozenset(languages),
        path if path.is_dir() else path.parent,
        identity_of(path / "model.safetensors" if path.is_dir() else path),
        stored.entries,
    )


def find_checkpoint(path: Path) -> Path:
    """The file of a run folder to use: the best state, else the last; other paths as they are."""
    if not path.is_dir() or (path / "config.json").is_file():
        return path
    for name in (run_folder.BEST_CHECKPOINT, run_folder.LAST_CHECKPOINT):
        if (path / name).is_file():
            return path / name
    raise UsageError(f"the folder {path} holds no model: neither checkpoints of a run nor an exported model")
