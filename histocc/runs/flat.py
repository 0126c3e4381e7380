"""A run of the flat classifier, from the checkpoint to resume to the last one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from histocc.dataloader import load_data
from histocc.dataloader.fingerprint import fingerprint
from histocc.dataloader.flat_dataset import WIDTH_STEP
from histocc.dataloader.rows import TextColumn
from histocc.dataloader.seen import seen_texts
from histocc.dataloader.task import known_languages
from histocc.files import console, run_folder
from histocc.files.atomic import save_with_retry, write_atomically
from histocc.files.tensors import weight_differences
from histocc.formatter import coding_system
from histocc.metrics.code_sets import EvaluatedCodes
from histocc.metrics.row_groups import RowGroups
from histocc.model_assets import CANINEOccupationClassifier, encoder_settings
from histocc.processes.distributed import Processes
from histocc.report.next_steps import predict_command
from histocc.runs import shared
from histocc.runs.demo import DEMO_ENCODER, begin_with_rare_classes, make_encoder
from histocc.runs.options import FlatOptions
from histocc.runs.start import Start, find_start
from histocc.stored_model import ModelSettings, describe_model
from histocc.trainer import AugmentationSwitch, FlatTraining, evaluate_figures
from histocc.training.compilation import allow_graphs, compiler_options
from histocc.training.context import Plan
from histocc.training.loop import unwrap
from histocc.training.resume import position_of, restore
from histocc.training.schedule import linear_schedule
from histocc.weights import InitialWeights, read_state_dict

DEFAULT_ENCODER = "google/canine-s"
# The pooled encoding of a small encoder with random weights tells texts apart only if these are large enough.
_SCRATCH_SCALE = 0.1

# Each width is a graph of its own, so that there should be few of them.
COMPILED_WIDTH_STEP = 16


def run_flat(options: FlatOptions, processes: Processes) -> int:
    """Resume the run in the save folder or start one: checkpoint, check, seed, encoder, data, model, training.

    Returns
    -------
    int
        The exit code: 0, 130 after Ctrl-C, 1 if the last checkpoint could not be written.
    """
    start = find_start(options, processes)
    options = start.options
    torch.manual_seed(options.seed)
    # A model name decides where there is no --encoder, which has a default of its own.
    name = options.model_domain if options.encoder == DEFAULT_ENCODER else options.encoder
    encoder = make_encoder(name, initializer_range=_SCRATCH_SCALE)
    random_state = torch.get_rng_state()
    shared.check_length(options, name, encoder)
    weights = _initial_weights(start, encoder)

    data = _read_data(options, processes)
    train_loader = data["data_loader_train"]
    settings = options.compared() | {
        "encoder": options.encoder,
        "num_classes": data["N_CLASSES"],
        "training_rows": train_loader.sampler.n_rows,
        "training_data": fingerprint(train_loader.dataset.dataset),
        "validation_data": fingerprint(data["data_loader_val"].dataset.dataset),
    }
    position = None
    if start.checkpoint is not None:
        position = position_of(start.checkpoint, settings, processes, start.notes)

    torch.set_rng_state(random_state)
    model = _model(options, data["N_CLASSES"], encoder, from_scratch=name == DEMO_ENCODER)
    if weights is not None:
        start.notes.append(str(weights.load_into(model)))
        shared.note_new_languages(start, weights, data["Languages"])
    model.to(processes.device)
    optimizer = shared.make_optimizer(model, options.learning_rate)
    steps = shared.count_steps(options, train_loader.sampler, position)
    scheduler = linear_schedule(optimizer, steps.warmup, steps.total)
    context = shared.make_context(options, processes)
    plan = Plan(
        steps.total,
        shared.log_interval(options, steps),
        save_interval=options.save_interval,
        grad_accum_steps=options.grad_accum_steps,
        keep_checkpoints=options.keep_checkpoints,
    )
    facts = {
        "training rows": train_loader.sampler.n_rows,
        "classes": data["N_CLASSES"],
        "reference loss": f"{data['reference_loss']:.5g}, that of the class frequencies alone",
    }
    if options.print_config:
        words = f"{len(data['data_loader_val'].sampler.rows):,} rows"
        by_epoch = replace(plan, eval_each_epoch=True, save_each_epoch=True)
        return shared.show_plan(facts, start, processes, model, steps, by_epoch, words, weights_alone=2)
    stored = ModelSettings(
        "flat", options.max_len, dropout=options.dropout, encoder=encoder_settings(model.basemodel.config)
    )
    loss_fn = nn.BCEWithLogitsLoss()
    training = FlatTraining(
        shared.wrap(model, processes),
        data,
        loss_fn,
        optimizer,
        scheduler,
        AugmentationSwitch(data["reference_loss"]),
        plan,
        context,
        options.name,
        codes=_evaluated_codes(data),
        save_extra={
            "settings": settings,
            "languages": known_languages(data["Languages"]),
            **describe_model(coding_system("hisco"), stored),
            "best_weights": run_folder.best_weights(options.name),
        },
    )
    loop = training.loop
    if start.checkpoint is not None:
        restore(training, loop, start.checkpoint, position, settings, start.notes)
        # Optimizer and model have what they need; this copy would take three times the model's size all the while.
        start.checkpoint = None
    if options.compile:
        compile_encoder(model, options.max_len)

    header = shared.announce(facts, start, loop, steps)
    if processes.is_main:
        names = {"train": "training", "val": "validation", "test": "test"}
        sets = {part: data[f"data_loader_{part}"].dataset.dataset for part in names}
        rows = {name: len(sets[part]) for part, name in names.items()}
        languages = shared.languages_of(data["Languages"], sets["train"].language_index[sets["train"].rows])
        report = shared.report(options, loop, coding_system("hisco"), header, rows, languages)
        loop.on_evaluation = [*loop.on_evaluation, *shared.callbacks(options, loop.step), report]
    with context.stop:
        training.run()
        if not loop.stopped:
            _test(training, data, loss_fn)
            if processes.is_main:
                report.draw(loop.step)
    files = training.checkpoints
    code = shared.end(
        loop,
        f"The newest weights are in {files.newest}, those of the highest validation accuracy (of equals, the least "
        f"loss) in {files.best}. They code a table with\n"
        f"  {predict_command(options.folder, options.shown(), set(data['Languages']))}",
        "Train it longer, or train a model with a decoder (train_mixer.py, finetune.py).",
    )
    if options.demo and code == 0 and not loop.stopped and processes.is_main:
        from histocc.runs.unseen import rows_of_flat, show_unseen

        codes = list(data["key"].values())
        set_aside, trained = (
            rows_of_flat(data[name].dataset.dataset, codes) for name in ("data_loader_test", "data_loader_train")
        )
        show_unseen(options.folder, Path(options.train_data[-1]), set_aside, trained, options.seed, processes.device)
    return code


def _read_data(options: FlatOptions, processes: Processes) -> dict[str, Any]:
    return load_data(
        options.model_domain,
        upsample_below=options.upsample_minimum,
        sample_size=options.sample_size,
        max_len=options.max_len,
        alt_prob=options.augmentation_prob,
        batch_size=options.batch_size,
        insert_words=not options.skip_insert_words,
        train_data=options.train_data,
        seed=options.seed,
        rank=processes.rank,
        world_size=processes.world_size,
        workers=shared.workers(options, processes.device),
        max_val_samples=options.max_val_samples,
        dense_targets=False,
        width_step=COMPILED_WIDTH_STEP if options.compile else WIDTH_STEP,
        verbose=processes.is_main and not options.print_config,
    )


def _evaluated_codes(data: Mapping[str, Any]) -> EvaluatedCodes:
    """What an evaluation counts of the classes above one half."""
    train, val = (data[f"data_loader_{part}"].dataset.dataset for part in ("train", "val"))
    # Of a table of which both are parts.
    texts = TextColumn.from_strings(val.text[row] for row in val.rows)
    groups = RowGroups(
        known_languages(val.languages) or (),
        val.language_index[val.rows],
        seen_texts(texts, train.text, train.rows),
    )
    return EvaluatedCodes(groups=groups, names=list(data["key"].values()), text_of=texts.__getitem__)


def _initial_weights(start: Start[FlatOptions], encoder: Any) -> InitialWeights | None:
    """The weights that the run starts from; None where it starts without, or from a checkpoint."""
    path = start.options.initial_checkpoint
    if path is None:
        return None
    if start.checkpoint is not None:
        start.notes.append(f"--initial-checkpoint is not used: the run is resumed from {start.source}")
        return None
    weights = InitialWeights.read(path)
    with torch.device("meta"):  # shapes alone; the number of classes does not matter for them
        shapes = CANINEOccupationClassifier(1, encoder=encoder.config)
    weights.check(shapes)
    return weights


def _test(training: FlatTraining, data: Mapping[str, Any], loss_fn: nn.Module) -> None:
    """Evaluate the best weights on the rows set aside, which played no part in the run, and show the figures."""
    loop = training.loop
    context = loop.context
    best = training.checkpoints.best
    # All processes judge the same weights, as they would be used; the run itself is over.
    there = context.processes.gather(best.is_file())[0]
    model = unwrap(loop.model)
    if there:
        weights, _ = read_state_dict(best)
        differences = weight_differences(model, weights)
        if differences:
            # It was there before the run, which has never been better.
            if context.processes.is_main:
                console.warn(f"{best} is of another model ({differences[0]}), so no weights are tested")
            return
        model.load_state_dict(weights)
    figures = evaluate_figures(model, data["data_loader_test"], loss_fn, context)
    if figures is None or not context.processes.is_main:
        return
    named = {"rows": figures["rows"], "test_loss": figures["val_loss"], "test_acc": figures["val_acc"]}
    path = context.folder / run_folder.TEST_FIGURES
    text = json.dumps({"step": loop.step, **named}) + "\n"
    save_with_retry(lambda: write_atomically(path, lambda file: file.write(text.encode())), str(path))
    console.say(
        f"On the {figures['rows']:,} rows set aside for testing the best weights have a loss of "
        f"{figures['val_loss']:.4g}, and {100 * figures['val_acc']:.1f} % of the rows have exactly the right codes."
    )


def compile_encoder(model: CANINEOccupationClassifier, max_len: int) -> None:
    """Compile the encoding of a group of rows, in place: a graph for each width, for any number of rows."""
    widths = -(-max_len // COMPILED_WIDTH_STEP)
    allow_graphs(2 * widths)  # in training and in evaluation
    compiled = torch.compile(model.encode, options=compiler_options(model.out.weight.device))

    def encode(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tensors = input_ids.contiguous(), attention_mask.contiguous()
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return compiled(*tensors)

    model.encode = encode


def _model(options: FlatOptions, num_classes: int, encoder: Any, *, from_scratch: bool) -> CANINEOccupationClassifier:
    model = CANINEOccupationClassifier(num_classes, dropout_rate=options.dropout, encoder=encoder)
    if from_scratch:
        begin_with_rare_classes(model.out)
    # The pooled encoding does not depend on these: they get no gradient, and several processes must not wait for one.
    model.basemodel.final_char_encoder.requires_grad_(False)
    model.basemodel.projection.requires_grad_(False)
    return model
