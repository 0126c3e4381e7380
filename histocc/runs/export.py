"""`histocc export`: a trained model as a folder that works anywhere, without the run and its data."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from histocc.errors import Problems, UsageError
from histocc.files import console, run_folder
from histocc.files.folders import check_folder
from histocc.files.key import write_key
from histocc.prediction.loaded import LoadedModel
from histocc.prediction.loading import load_model
from histocc.processes.distributed import Processes
from histocc.runs import command_line as cli
from histocc.stored_model import describe_model

CARD, WEIGHTS, CONFIG = "README.md", "model.safetensors", "config.json"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The flags of `histocc export`; names are those of the flags."""

    model: str
    output: str
    encoder: str | None = None
    tf32: bool = True

    @classmethod
    def from_namespace(cls, args: argparse.Namespace) -> ExportOptions:
        """The options of a parsed command line."""
        return cls(**{f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)})


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = cli.ScriptParser(
        prog="histocc export",
        description="Write a trained model into a folder that can be copied, loaded and pushed to a hub as it is.",
        epilog="Example: histocc export --model runs/mine --output my-model",
    )
    parser.add_argument("--model", required=True, help="run folder or checkpoint file")
    parser.add_argument("--encoder", default=None, help="encoder of a file that does not say which it has (CANINE-s)")
    parser.add_argument("--output", required=True, help="folder to make; it must not exist, or be empty")
    return parser


def export(options: ExportOptions, processes: Processes) -> int:
    """The command: check, load the model, write the folder."""
    target = Path(options.output)
    problems = Problems()
    problems.run(check_folder, target, "--output")
    if target.is_dir() and any(target.iterdir()):
        problems.add(f"--output {target} is a folder with something in it: name one that does not exist")
    problems.raise_if_any()
    loaded = load_model(options.model, torch.device("cpu"), encoder=options.encoder)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside its place and renamed, so that there is never half a model.
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        write_model(loaded, made)
        made.chmod(0o755)
        if target.is_dir():
            target.rmdir()
        os.replace(made, target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    console.say(f"The model is in {target}: histocc predict --model {target} uses it.")
    return 0


def write_model(loaded: LoadedModel, folder: Path) -> None:
    """Write weights, configuration, key, thresholds and card of a model. Raises OSError where that cannot be done."""
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(_config(loaded), indent=1, ensure_ascii=False) + "\n", "utf-8")
    key = loaded.system.key
    if key is not None:
        write_key(key, folder / run_folder.KEY)
    if loaded.folder is not None and (loaded.folder / run_folder.THRESHOLDS).is_file():
        shutil.copyfile(loaded.folder / run_folder.THRESHOLDS, folder / run_folder.THRESHOLDS)
    (folder / CARD).write_text(_card(loaded), "utf-8")


def _config(loaded: LoadedModel) -> dict[str, Any]:
    """What the hub's classes are made from, and what `load_stored_model` reads."""
    settings, system = loaded.settings, loaded.system
    common = {
        "model_domain": "Multilingual_CANINE",
        "dropout_rate": settings.dropout,
        "encoder": dict(settings.encoder),
        "languages": None if loaded.languages is None else sorted(loaded.languages),
        **describe_model(system, settings),
    }
    if settings.kind == "flat":
        return {"n_classes": system.num_classes, **common}
    return {
        "num_classes": list(system.formatter.num_classes),
        "num_classes_flat": system.num_classes,
        "decoder_dim_feedforward": settings.decoder_dim_feedforward,
        **common,
    }


def _card(loaded: LoadedModel) -> str:
    system, settings = loaded.system, loaded.settings
    trained: Mapping[str, Any] = loaded.entries.get("settings") or {}
    languages = "not noted" if loaded.languages is None else ", ".join(sorted(loaded.languages))
    rows = trained.get("training_rows")
    facts = [
        f"- coding system: {system.name}, {system.num_classes:,} codes, up to {system.formatter.max_num_codes} a text",
        f"- languages: {languages}",
        f"- trained on {rows:,} rows" if isinstance(rows, int) else "- training rows: not noted",
        f"- step {loaded.entries.get('step', 'not noted')}; texts of up to {settings.max_len} characters",
    ]
    listed = "\n".join(facts)
    return f"""---
library_name: histocc
tags: [occupational coding, CANINE, {system.name}]
---

# A model for occupational descriptions

Turns occupational descriptions into codes. It was trained with histocc; encoder: CANINE.

{listed}

## Use

```bash
histocc predict --model FOLDER --input table.csv --input-col occ1 --output coded.csv
```

```python
from histocc import OccCANINE

model = OccCANINE("FOLDER", hf=False)
model.predict(["wine and spirit merchant"], lang="en")
```

## How good it is

`histocc evaluate --model FOLDER --input TABLE --target-cols ... --output judged` says so for a table with known codes.

## Cite

Dahl, C. M., Johansen, T., Vedel, C. (2024): Breaking the HISCO Barrier: Automatic Occupational Standardization with
OccCANINE.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv`; return the exit code."""
    return cli.run_script(export, ExportOptions.from_namespace(build_parser().parse_args(argv)))
