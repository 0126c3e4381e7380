"""Fine-tuning a loaded model on a table of one's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from histocc.dataloader.loader import make_loader
from histocc.dataloader.samplers import EvalBatchSampler, TrainBatchSampler
from histocc.errors import UsageError
from histocc.files import console
from histocc.files.tables import column_names
from histocc.formatter import PAD_IDX, general_system
from histocc.formatter.general import BlockyFormatter
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.prediction.loaded import LoadedModel
from histocc.preparation import prepare_finetuning_data, setup_finetuning_datasets
from histocc.seq2seq_mixer_engine import train
from histocc.stored_model import build_model, describe_model
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.schedule import linear_schedule
from histocc.weights import InitialWeights

if TYPE_CHECKING:
    import pandas as pd

_MOST_CODES = 5
_SEED = 42


@dataclass(frozen=True)
class FinetuningOptions:
    """How to fine-tune; see `OccCANINE.finetune`."""

    input_col: str
    language: str
    language_col: str | None
    target_cols: Sequence[str] | None = None
    save_interval: int = 1000
    log_interval: int = 10
    eval_interval: int = 100
    drop_bad_labels: bool = True
    allow_codes_shorter_than_block_size: bool = True
    share_val: float = 0.1
    learning_rate: float = 2e-05
    num_epochs: int = 3
    warmup_steps: int = 500
    seq2seq_weight: float = 0.1
    freeze_encoder: bool = True
    batch_size: int = 256


def finetune(
    loaded: LoadedModel,
    dataset: str | os.PathLike[str] | pd.DataFrame,
    save_path: str | os.PathLike[str],
    options: FinetuningOptions,
) -> None:
    """Prepare a table, and train a mixer that starts from a model's weights.

    Encoder, the rows of the flat head whose codes both have, and the decoder where its alphabet is the same, come from
    the model, which stays as it is. The files of preparation and the checkpoints are written to `save_path`.

    Raises
    ------
    UsageError
        The table cannot be used, or there are checkpoints in `save_path` already.
    """
    folder = Path(save_path)
    checkpoints = CheckpointFolder(folder).files()
    if checkpoints:
        raise UsageError(f"{checkpoints[0]} is from a run before: choose another save_path, or move it away")
    base = loaded.system.formatter
    columns = options.target_cols or _code_columns(loaded, dataset)
    general = isinstance(base, BlockyFormatter)
    system = general_system(
        base.block_size,
        columns,
        chars=list(base.map_char_idx) if general else None,
        use_within_block_sep=general and base.within_block_sep is not None,
    )
    key = prepare_finetuning_data(
        dataset,
        options.input_col,
        system.formatter,
        folder,
        options.share_val,
        options.language,
        options.language_col,
        options.drop_bad_labels,
        options.allow_codes_shorter_than_block_size,
    )
    system = system.with_key(key)
    settings = replace(loaded.settings, kind="mixer", lowercase=False, ascii_only=False)
    model = build_model(system, settings)
    console.say(str(_take_weights(loaded, model, key)))
    model.to(next(loaded.model.parameters()).device)
    if options.freeze_encoder:
        model.encoder.requires_grad_(False)
    data = setup_finetuning_datasets(
        columns, folder, system.formatter, None, len(key), key, max_input_len=settings.max_len, seed=_SEED
    )
    order = TrainBatchSampler(len(data[0]), options.batch_size, _SEED)
    steps = len(order) * options.num_epochs
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=options.learning_rate)
    formatter = system.formatter
    train(
        model,
        {
            "data_loader_train": make_loader(data[0], order),
            "data_loader_val": make_loader(data[1], EvalBatchSampler(range(len(data[1])), options.batch_size)),
        },
        LossMixer(
            BlockOrderInvariantLoss(PAD_IDX, nb_blocks=formatter.max_num_codes, block_size=formatter.block_size),
            nn.BCEWithLogitsLoss(),
            seq2seq_weight=options.seq2seq_weight,
        ),
        optimizer,
        next(model.parameters()).device,
        linear_schedule(optimizer, min(options.warmup_steps, steps), steps),
        str(folder),
        steps,
        log_interval=options.log_interval,
        eval_interval=options.eval_interval,
        save_interval=options.save_interval,
        train_sampler=order,
        seed=_SEED,
        save_extra=describe_model(system, settings),
    )
    console.say(f"The model is in {folder}: OccCANINE({str(folder)!r}) uses it.")


def _code_columns(loaded: LoadedModel, dataset: str | os.PathLike[str] | pd.DataFrame) -> list[str]:
    """The columns `{label}_1`, `{label}_2`, ... that a table has."""
    if isinstance(dataset, (str, os.PathLike)):
        names = column_names(dataset)
    else:
        names = [str(name) for name in dataset.columns]
    found = [name for i in range(1, _MOST_CODES + 1) if (name := f"{loaded.label}_{i}") in names]
    if not found:
        raise UsageError(
            f"the table has no column {loaded.label}_1: name the columns of the codes with target_cols=; its columns "
            f"are {', '.join(names)}"
        )
    return found


def _take_weights(loaded: LoadedModel, model: nn.Module, key: dict[str, int]) -> object:
    state = loaded.model.state_dict()
    own = model.state_dict()
    # Of a decoder with another alphabet nothing can be used.
    same_alphabet = all(state[name].shape == own[name].shape for name in state if name.startswith("decoder."))
    if not same_alphabet:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}
    return InitialWeights(loaded.source, state, {"key": loaded.system.key}).load_into(model, key=key)
