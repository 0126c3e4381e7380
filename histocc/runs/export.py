"""`histocc export`: a trained model as a folder that works anywhere, without the run and its data."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from histocc.errors import Problems, UsageError
from histocc.files import console, run_folder
from histocc.files.folders import check_folder
from histocc.files.key import write_key
from histocc.prediction.loaded import LoadedModel
from histocc.prediction.loading import check_name
from histocc.processes.distributed import Processes
from histocc.report.card import model_card
from histocc.report.facts import RunFacts
from histocc.report.record import RunRecord
from histocc.runs import command_line as cli
from histocc.runs.model_flags import GROUPS, LATER, ModelOptions, add_model_flags, load
from histocc.runs.parser import ScriptParser
from histocc.runs.ranges import check_numbers
from histocc.stored_model import describe_model

CARD, WEIGHTS, CONFIG = run_folder.CARD, "model.safetensors", "config.json"
# What the card calls the folder, whose place is not known yet.
_PLACE = "FOLDER"


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ModelOptions):
    """The flags of `histocc export`; names are those of the flags."""

    output: str


def build_parser() -> ScriptParser:
    """The command line."""
    parser = ScriptParser(
        "histocc export",
        description="Write a trained model into a folder that can be copied, loaded and pushed to a hub as it is.",
        needs="--model FOLDER --output FOLDER",
        groups=GROUPS,
        examples="  histocc export --model runs/mine --output my-model",
        later=LATER,
    )
    add_model_flags(parser)
    parser.flag(
        cli.MODEL,
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder to make; it must not exist, or be empty",
    )
    return parser


def export(options: ExportOptions, processes: Processes) -> int:
    """The command: check, load the model, write the folder."""
    target = Path(options.output)
    problems = Problems()
    problems.run(check_name, options.model)
    problems.run(check_folder, target, "--output")
    if target.is_dir() and any(target.iterdir()):
        problems.add(f"--output {target} is a folder with something in it: name one that does not exist")
    check_numbers(vars(options), problems)
    problems.raise_if_any()
    loaded = load(options, processes, torch.device("cpu"))
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
    console.say(f"The model is in {target}: histocc predict --model {shlex.quote(str(target))} uses it.")
    return 0


def write_model(loaded: LoadedModel, folder: Path) -> None:
    """Write weights, configuration, key, thresholds and card of a model. Raises OSError where that cannot be done."""
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in loaded.model.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(_config(loaded), indent=1, ensure_ascii=False) + "\n", "utf-8")
    # The file of weights is made private, and to be passed on.
    (folder / WEIGHTS).chmod((folder / CONFIG).stat().st_mode)
    key = loaded.system.key
    if key is not None:
        write_key(key, folder / run_folder.KEY)
    if loaded.thresholds_file is not None and loaded.thresholds_file.is_file():
        shutil.copyfile(loaded.thresholds_file, folder / run_folder.THRESHOLDS)
    names = {path.name for path in folder.iterdir()} | {CARD}
    (folder / CARD).write_text(_card(loaded, names), "utf-8")


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


def _card(loaded: LoadedModel, names: set[str]) -> str:
    """The card of the run, for a folder with other files in it; without a run, what the weights themselves say."""
    facts = record = None
    if loaded.folder is not None:
        try:
            facts = RunFacts.read(loaded.folder)
            record = RunRecord.read(loaded.folder) if facts is not None else None
        except UsageError as error:
            console.warn(f"the card of the model says little of its run: {error}")
            facts = record = None
    if facts is None:
        return model_card(_facts_of_weights(loaded), None, names, _PLACE, step=_step(loaded))
    # Of a run of train.py the best weights stand alone: their step is that of the log, and they alone are tested.
    is_best = facts.kind == "flat" and Path(loaded.source).name == loaded.entries.get("best_weights")
    step = record.best_step() if is_best else _step(loaded)
    details = test = None
    if step is not None:
        try:
            details, test = record.details(step), record.test() if is_best else None
        except UsageError as error:
            console.warn(f"the card of the model has no figures: {error}")
    return model_card(facts, details, names, _PLACE, step=step, test=test)


def _facts_of_weights(loaded: LoadedModel) -> RunFacts:
    """What the weights themselves say of their run."""
    settings: Mapping[str, Any] = loaded.entries.get("settings") or {}
    rows = settings.get("training_rows")
    return RunFacts(
        kind=loaded.settings.kind,
        system=loaded.system.name,
        codes=loaded.system.num_classes,
        codes_a_row=loaded.system.formatter.max_num_codes,
        max_len=loaded.settings.max_len,
        rows={"training": rows} if isinstance(rows, int) else {},
        languages=dict.fromkeys(sorted(loaded.languages or ()), 0),
    )


def _step(loaded: LoadedModel) -> int | None:
    step = loaded.entries.get("step")
    return step if isinstance(step, int) else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv`; return the exit code."""
    return cli.run_script(export, ExportOptions.from_namespace(build_parser().parse_args(argv)))
