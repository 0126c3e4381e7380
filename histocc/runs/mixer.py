"""A run of the mixer model, from the checkpoint to resume to the last one; both mixer scripts share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from histocc.dataloader import (
    EvalBatchSampler,
    OccDatasetMixerInMemMultipleFiles,
    TrainBatchSampler,
    evaluation_rows,
    make_loader,
)
from histocc.dataloader.fingerprint import fingerprint
from histocc.dataloader.mixer_dataset import TRIM_MULTIPLE
from histocc.dataloader.rows import TextColumn
from histocc.dataloader.seen import seen_texts
from histocc.dataloader.task import known_languages
from histocc.errors import Problems, UsageError
from histocc.files import run_folder
from histocc.files.tables import read_chunks
from histocc.formatter import PAD_IDX, CodingSystem
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.metrics.code_sets import EvaluatedCodes
from histocc.metrics.row_groups import RowGroups
from histocc.model_assets import Seq2SeqMixerOccCANINE, encoder_settings
from histocc.processes.distributed import Processes
from histocc.report.next_steps import predict_command
from histocc.runs import shared
from histocc.runs.demo import DEMO_ENCODER, begin_with_rare_classes, make_encoder
from histocc.runs.options import MixerOptions
from histocc.runs.start import Start, find_start
from histocc.runs.stored_encoder import stored_encoder
from histocc.seq2seq_mixer_engine import build_loop
from histocc.stored_model import ModelSettings, describe_model
from histocc.training.compilation import allow_graphs, compiler_options
from histocc.training.context import Plan
from histocc.training.loop import OnEvaluation
from histocc.training.resume import position_of, restore
from histocc.training.schedule import linear_schedule
from histocc.training.tracking import wandb_callback, wandb_init
from histocc.weights import PUBLISHED_MODELS, InitialWeights


@dataclass(frozen=True)
class MixerData:
    """What a script brings to a run of the mixer.

    Parameters
    ----------
    train, val
        The data sets.
    system
        The coding system, with its codes.
    validation_file
        A file of the rows of `val`, with columns `occ1` and `lang`.
    facts
        More lines of the header.
    saves_key
        The codes are those of the data or of a file elsewhere, so that the save folder gets a key of its own.
    """

    train: OccDatasetMixerInMemMultipleFiles
    val: OccDatasetMixerInMemMultipleFiles
    system: CodingSystem
    validation_file: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    saves_key: bool = False


MakeData = Callable[[Start[MixerOptions]], MixerData]


def run_mixer(options: MixerOptions, processes: Processes, system: CodingSystem, make_data: MakeData) -> int:
    """Resume the run in the save folder or start one: checkpoint, check, seed, encoder, data, model, training.

    Parameters
    ----------
    options
        The flags.
    processes
        The processes of the run.
    system
        The coding system; its codes may still be unknown.
    make_data
        Called once the checkpoint, the encoder and the initial weights are known to be good; with the options in force.

    Returns
    -------
    int
        The exit code: 0, 130 after Ctrl-C, 1 if the last checkpoint could not be written.
    """
    start = find_start(options, processes)
    options = start.options
    if start.checkpoint is not None:
        _check_same_task(start, system)
    torch.manual_seed(options.seed)
    weights = _initial_weights(start)
    stored = stored_encoder(options, start.checkpoint, weights)
    encoder = make_encoder(options.encoder) if stored is None else stored.encoder
    random_state = torch.get_rng_state()
    if stored is None:
        shared.check_length(options, options.encoder, encoder)
    else:
        shared.check_length(options, f"of {stored.source}", encoder, stored.max_len)
    with torch.device("meta"):  # shapes alone; the number of classes does not matter for them
        shapes = _model(options, system.formatter, 1, encoder.config)
    if weights is not None:
        weights.check(shapes, only_encoder=options.only_encoder)

    data = make_data(start)
    # Data that were prepared before have settings of their own.
    options = start.options
    system, formatter = data.system, data.system.formatter
    start.notes[:0] = [
        f"Warning: {kind} data: {note}"
        for kind, dataset in (("training", data.train), ("validation", data.val))
        for note in dataset.notes
    ]
    settings = _settings(options, data)
    position = None
    if start.checkpoint is not None:
        position = position_of(start.checkpoint, settings, processes, start.notes)
        _compare_keys(start.checkpoint.key, data.train.map_code_label, start)

    torch.set_rng_state(random_state)
    model = _model(options, system.formatter, system.num_classes, encoder)
    if options.encoder == DEMO_ENCODER:
        begin_with_rare_classes(model.linear_decoder)
    if weights is not None:
        summary = weights.load_into(model, only_encoder=options.only_encoder, key=data.train.map_code_label)
        start.notes.append(str(summary))
        shared.note_new_languages(start, weights, data.train.languages)
        key_there = Path(summary.source).with_name(run_folder.KEY)
        if summary.dropped and "all_codes_file" in options.arguments and key_there.is_file():
            start.notes.append(
                f"Warning: {summary.dropped:,} codes of {summary.source} have no class here, so that the model can no "
                f"longer give them; --all-codes-file {key_there} keeps them, where the table is prepared with it"
            )
    if (before := _trained_before(options)) is not None:
        start.notes.append(f"Descriptions of {before} count as seen: the initial weights were trained on them")
    model.to(processes.device)
    if options.freeze_encoder:
        # Before the model is wrapped: a wrapped model waits for gradients of everything that wanted some.
        model.encoder.requires_grad_(False)
    optimizer = shared.make_optimizer(model, options.learning_rate)
    loss_fn = LossMixer(
        BlockOrderInvariantLoss(PAD_IDX, nb_blocks=formatter.max_num_codes, block_size=formatter.block_size),
        nn.BCEWithLogitsLoss(),
        seq2seq_weight=options.seq2seq_weight,
    )
    train_loader, val_loader = _loaders(options, processes, data)
    steps = shared.count_steps(options, train_loader.sampler, position)
    scheduler = linear_schedule(optimizer, steps.warmup, steps.total)
    context = shared.make_context(options, processes)
    plan = Plan(
        steps.total,
        shared.log_interval(options, steps),
        options.eval_interval,
        options.save_interval,
        save_each_epoch=options.save_each_epoch,
        grad_accum_steps=options.grad_accum_steps,
        keep_checkpoints=options.keep_checkpoints,
    )
    facts = {
        "training rows": len(data.train),
        "validation rows": len(data.val),
        "classes": system.num_classes,
        "codes a row": f"up to {formatter.max_num_codes}, {formatter.block_size} tokens each",
        **data.facts,
    }
    if stored is not None:
        trained = "frozen" if options.freeze_encoder else "trained"
        facts["encoder"] = f"from {stored.source}, {trained}"
    if options.print_config:
        rows = len(val_loader.sampler.rows)
        decoded = min(rows, options.eval_decode_samples)
        words = f"{rows:,} rows, {decoded:,} of them decoded token by token"
        return shared.show_plan(facts, start, processes, model, steps, plan, words)
    model_settings = ModelSettings(
        "mixer",
        options.max_len,
        options.decoder_dim_feedforward,
        options.dropout,
        encoder_settings(model.encoder.config),
    )
    key = data.train.map_code_label
    loop = build_loop(
        shared.wrap(model, processes),
        val_loader,
        loss_fn,
        optimizer,
        scheduler,
        plan,
        context,
        codes=_evaluated_codes(options, data, val_loader.sampler),
        save_extra={
            "key": dict(key) if key is not None else None,
            "settings": settings,
            "languages": known_languages(data.train.languages),
            **describe_model(system, model_settings),
        },
    )
    if start.checkpoint is not None:
        restore(loop, loop, start.checkpoint, position, settings, start.notes)
        # Optimizer and model have what they need; this copy would take three times the model's size all the while.
        start.checkpoint = None
    if options.compile:
        compile_model(model, options.max_len if options.trim_padding else None)

    header = shared.announce(facts, start, loop, steps, key=key if data.saves_key else None)
    if processes.is_main:
        rows = {"training": len(data.train), "validation": len(data.val)}
        languages = shared.languages_of(data.train.languages, data.train.language_index)
        report = shared.report(options, loop, system, header, rows, languages)
        loop.on_evaluation = [*_callbacks(options, loop.step), report]
    with context.stop:
        loop.run(lambda epoch: train_loader)
    if processes.is_main and not loop.stopped:
        # A run that was complete already evaluates nothing; what it could not draw before, it draws now.
        report.draw(loop.step)
    last, best = options.folder / run_folder.LAST_CHECKPOINT, options.folder / run_folder.BEST_CHECKPOINT
    code = shared.end(
        loop,
        f"The model is in {last}, the best one by val_loss in {best}. It codes a table with\n"
        f"  {predict_command(options.folder, options.shown(), set(data.train.languages))}",
        "The decoder's codes are another matter (--method greedy, the default of histocc predict).",
    )
    if options.demo and code == 0 and not loop.stopped and processes.is_main:
        from histocc.runs.unseen import rows_of_mixer, show_unseen

        rows, trained = rows_of_mixer(data.val), rows_of_mixer(data.train)
        show_unseen(options.folder, data.validation_file, rows, trained, options.seed, processes.device)
    return code


def _check_same_task(start: Start[MixerOptions], system: CodingSystem) -> None:
    """Raise UsageError where a run cannot be resumed since it is about other targets, or trains other weights."""
    problems = Problems()
    saved, source, formatter = start.checkpoint.settings, start.source, system.formatter
    for name, what, flag in (
        ("max_num_codes", "codes a row", "--target-cols"),
        ("block_size", "tokens a code", "--block-size"),
    ):
        now = getattr(formatter, name)
        before = saved.get(name, now)
        if before != now:
            problems.add(f"{source} is from a run with another number of {what}, {before} and not {now} ({flag})")
    frozen = saved.get("freeze_encoder", start.options.freeze_encoder)
    if frozen != start.options.freeze_encoder:
        problems.add(f"{source} is from a run {'with' if frozen else 'without'} --freeze-encoder")
    if problems:
        problems.add("Give the flags that the run was started with, or another save folder")
    problems.raise_if_any()


def _initial_weights(start: Start[MixerOptions]) -> InitialWeights | None:
    """The weights that the run starts from; None where it starts without, or from a checkpoint."""
    options = start.options
    if options.initial_checkpoint is None:
        return None
    if start.checkpoint is not None:
        start.notes.append(f"--initial-checkpoint is not used: the run is resumed from {start.source}")
        return None
    return InitialWeights.read(options.initial_checkpoint)


def _model(options: MixerOptions, formatter: Any, num_classes_flat: int, encoder: Any) -> Seq2SeqMixerOccCANINE:
    """The model that the flags ask for, on a ready encoder or a configuration; both heads have random weights."""
    return Seq2SeqMixerOccCANINE(
        options.encoder,
        formatter.num_classes,
        num_classes_flat,
        dropout_rate=options.dropout,
        decoder_dim_feedforward=options.decoder_dim_feedforward,
        encoder=encoder,
    )


def _compare_keys(saved: Mapping[str, int] | None, key: Mapping[str, int] | None, start: Start[MixerOptions]) -> None:
    """Refuse to resume with more or fewer codes than the checkpoint knows; note codes whose class is another one."""
    if saved is None or key is None or saved == key:
        return
    source = start.source
    if len(saved) != len(key):
        raise UsageError(
            f"the key has {len(key):,} codes now and had {len(saved):,} when {source} was saved, so this run cannot go "
            "on. Move the checkpoints (.bin) to another folder and give one of them as --initial-checkpoint: the model "
            "starts from it, with the codes that both know carried over"
        )
    changed = [code for code, index in key.items() if saved.get(code) != index]
    if changed:
        start.notes.append(
            f"Warning: {len(changed):,} codes of the key, as {changed[0]!r}, have another class than when {source} "
            "was saved. The model takes them for the codes that had these classes: right for a new spelling only"
        )


def _loaders(options: MixerOptions, processes: Processes, data: MixerData) -> tuple[Any, Any]:
    workers = shared.workers(options, processes.device)
    place = processes.rank, processes.world_size
    lengths = data.train.padded_lengths if options.trim_padding else None
    order = TrainBatchSampler(len(data.train), options.batch_size, options.seed, *place, lengths=lengths)
    val_rows = evaluation_rows(len(data.val), options.max_val_samples, options.seed)
    return (
        make_loader(data.train, order, replace(workers, persistent=workers.number > 0)),
        make_loader(data.val, EvalBatchSampler(val_rows, options.batch_size, *place), workers),
    )


def _evaluated_codes(options: MixerOptions, data: MixerData, sampler: EvalBatchSampler) -> EvaluatedCodes:
    """What an evaluation counts of codes; the rows that it decodes token by token are the same every time."""
    decoded = None
    if options.eval_decode_samples:
        decoded = torch.zeros(len(data.val), dtype=torch.bool)
        places = evaluation_rows(len(sampler.rows), options.eval_decode_samples, options.seed)
        decoded[torch.from_numpy(sampler.rows[places])] = True
    seen = seen_texts(data.val.text, data.train.text)
    before = _trained_before(options)
    if before is not None:
        seen |= seen_texts(data.val.text, TextColumn.from_strings(_descriptions_in(before)))
    groups = RowGroups(known_languages(data.val.languages) or (), np.asarray(data.val.language_index), seen)
    return EvaluatedCodes(data.system.formatter, groups, decoded, text_of=data.val.text.__getitem__)


def _trained_before(options: MixerOptions) -> Path | None:
    """The training rows of the run of `finetune.py` whose weights this one starts from, if they are still there."""
    name = options.initial_checkpoint
    if name is None or name.lower() in PUBLISHED_MODELS:
        return None
    path = Path(name)
    rows = (path if path.is_dir() else path.parent) / run_folder.TRAINING_ROWS
    return rows if rows.is_file() and rows.parent.resolve() != options.folder.resolve() else None


def _descriptions_in(rows: Path) -> Iterator[str]:
    """The descriptions of prepared rows."""
    for chunk in read_chunks(rows, ["occ1"]):
        yield from chunk["occ1"].tolist()


def _callbacks(options: MixerOptions, step: int) -> list[OnEvaluation]:
    found = shared.callbacks(options, step)
    if options.log_wandb and wandb_init(
        options.folder, options.wandb_project_name, name=options.folder.name, config=options.shown()
    ):
        found.append(wandb_callback)
    return found


def compile_model(model: nn.Module, longest_trimmed: int | None = None) -> None:
    """Compile the forward pass in place, for fixed shapes; names of parameters stay as they are.

    `longest_trimmed` is the greatest length where batches are trimmed: each multiple of 16 up to it is a shape of its
    own, in training, and one more in evaluation.
    """
    if longest_trimmed is not None:
        allow_graphs(2 * (-(-longest_trimmed // TRIM_MULTIPLE) + 1))
    model.compile(dynamic=False, options=compiler_options(next(model.parameters()).device))


def _settings(options: MixerOptions, data: MixerData) -> dict[str, Any]:
    """What a checkpoint says about how it was trained, in plain values."""
    formatter = data.system.formatter
    return options.compared() | {
        "num_classes": list(formatter.num_classes),
        "num_classes_flat": data.system.num_classes,
        "max_num_codes": formatter.max_num_codes,
        "block_size": formatter.block_size,
        "decoder_dim_feedforward": options.decoder_dim_feedforward,
        "encoder": options.encoder,
        "freeze_encoder": options.freeze_encoder,
        "training_rows": len(data.train),
        "training_data": fingerprint(data.train),
        "validation_data": fingerprint(data.val),
    }
