"""Small models with random weights that tell texts apart, and the files in which people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from histocc.formatter import coding_system, general_system
from histocc.model_assets import encoder_settings
from histocc.stored_model import ModelSettings, build_model, describe_model

REVISION = "0123456789abcdef0123456789abcdef01234567"
OWN_KEY = {"01A": 0, "02B": 1, "-1": 2, "9": 3}


def own_system(columns=("own_1", "own_2"), **options):
    return general_system(3, columns, key=OWN_KEY, **options)


def settings_of(kind, config, max_len=128, **options):
    return ModelSettings(kind, max_len, encoder=encoder_settings(config), **options)


def make(kind, config, system=None, **options):
    """A model with weights large enough for its answers to depend on the text."""
    torch.manual_seed(5)
    model = build_model(system or coding_system("hisco"), settings_of(kind, config, **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("bias") and "norm" not in name.lower():
                parameter.mul_(3)
    return model.eval()


def save_checkpoint(path: Path, kind: str, config: Any, system: Any = None, **options: Any) -> torch.nn.Module:
    """A checkpoint of this package."""
    system = system or coding_system("hisco")
    entries = {name: options.pop(name) for name in ("languages",) if name in options}
    model = make(kind, config, system, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    described = describe_model(system, settings_of(kind, config, **options))
    torch.save({"model": model.state_dict(), "step": 1, "key": system.key, **described, **entries}, path)
    return model


def publish(home: Path, name: str, kind: str, encoder: Any, system: Any = None, **files: Any) -> torch.nn.Module:
    """A model in a cache of the hub, as `huggingface_hub` lays it out; JSON files beside the weights in `files`."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    model = make(kind, encoder, system)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    for file, content in files.items():
        (snapshot / f"{file}.json").write_text(json.dumps(content))
    return model
