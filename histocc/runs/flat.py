"""A run of the flat classifier, from files to the last checkpoint."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from histocc.dataloader import load_data
from histocc.dataloader.flat_dataset import WIDTH_STEP
from histocc.model_assets import CANINEOccupationClassifier
from histocc.processes.distributed import Processes
from histocc.processes.signals import StopSignals
from histocc.runs import shared as run
from histocc.runs.command_line import warmup_share
from histocc.runs.demo import encoder_source
from histocc.trainer import FlatTraining
from histocc.training.checkpoint import CheckpointFolder
from histocc.training.resume import position_of, restore
from histocc.training.schedule import linear_schedule
from histocc.weights import load_initial_weights

DEFAULT_ENCODER = "google/canine-s"
# A small encoder with random weights tells texts apart only if these are large enough, and only if the linear layer
# begins with rare classes: else the way to many zeros leads over a pooled encoding of +-1 for every text, for good.
_SCRATCH_SCALE = 0.1
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

# Each width is a graph of its own, so that there should be few of them.
COMPILED_WIDTH_STEP = 16

# Settings that a checkpoint notes, to say so where a resumed run's flags differ.
_COMPARED = (
    "learning_rate",
    "batch_size",
    "epochs",
    "grad_accum_steps",
    "dropout",
    "max_len",
    "sample_size",
    "upsample_minimum",
    "alt_prob",
    "skip_insert_words",
    "warmup_pct",
    "warmup_steps",
    "max_steps",
    "max_val_samples",
    "use_amp",
    "amp_dtype",
)


def run_flat(args: argparse.Namespace, processes: Processes, model_name: str) -> int:
    """Read the data, build model, optimizer and schedule, take up an earlier run or initial weights, train, and save.

    Returns the exit code: 0, 130 after Ctrl-C, 1 if the last checkpoint could not be written.
    """
    save_dir = Path(args.save_dir)
    notes: list[str] = []
    state, source = CheckpointFolder(save_dir).load_newest(warn=notes.append) or (None, None)
    run.check_same_file_system(processes, state)
    seed = args.seed if state is None else run.seed_of(state, args.seed, notes)
    data = load_data(
        args.model_domain,
        upsample_below=args.upsample_minimum,
        sample_size=args.sample_size,
        max_len=args.max_len,
        alt_prob=args.alt_prob,
        batch_size=args.batch_size,
        insert_words=not args.skip_insert_words,
        train_data=args.train_data,
        seed=seed,
        rank=processes.rank,
        world_size=processes.world_size,
        num_workers=run.worker_count(args.num_workers, processes.device),
        pin_memory=processes.device.type == "cuda",
        prefetch_factor=args.prefetch_factor,
        max_val_samples=args.max_val_samples,
        dense_targets=False,
        width_step=COMPILED_WIDTH_STEP if args.compile else WIDTH_STEP,
        verbose=processes.is_main,
    )
    sampler = data["data_loader_train"].sampler
    settings = {name: getattr(args, name) for name in _COMPARED}
    settings |= {
        "warmup_pct": warmup_share(args),
        "encoder": args.encoder,
        "num_classes": data["N_CLASSES"],
        "training_rows": sampler.n_rows,
    }
    position = None
    if state is not None:
        notes += run.disagreements(state.get("settings"), settings, _COMPARED)
        position = position_of(state, settings, processes, notes)

    torch.manual_seed(seed)
    model = _model(args, data["N_CLASSES"])
    if state is None and args.checkpoint_path:
        notes.append(str(load_initial_weights(model, args.checkpoint_path)))
    elif args.checkpoint_path:
        notes.append(f"--checkpoint-path is not used: the run goes on from {source}")
    model.to(processes.device)
    optimizer = run.make_optimizer(model, args.learning_rate)
    steps = run.count_steps(args, sampler, args.epochs, position)
    scheduler = linear_schedule(optimizer, steps.warmup, steps.total)

    stop = StopSignals()
    training = FlatTraining(
        run.wrap(model, processes),
        data,
        nn.BCEWithLogitsLoss(),
        data["reference_loss"],
        optimizer,
        processes.device,
        scheduler,
        steps.total,
        model_name,
        save_dir,
        use_amp=args.use_amp,
        amp_dtype=args.amp_dtype,
        log_interval=run.log_interval(args, steps),
        save_interval=args.save_interval,
        keep_checkpoints=args.keep_checkpoints,
        grad_accum_steps=args.grad_accum_steps,
        processes=processes,
        seed=seed,
        stop=stop,
        save_extra={"settings": settings},
    )
    loop = training.loop
    if state is not None:
        restore(training.restore, state, source)
        if position is not None:
            loop.rows_done = position.rows_done
        # Optimizer and model have what they need; this copy would take three times the model's size all the while.
        state = None
    if args.compile:
        compile_encoder(model, args.max_len)

    facts = {
        "training rows": sampler.n_rows,
        "classes": data["N_CLASSES"],
        "reference loss": f"{data['reference_loss']:.5g}, that of the class frequencies alone",
    }
    run.announce(facts, notes, args, processes, loop, steps, save_dir, source, "--epochs")
    with stop:
        training.run()
    files = training.checkpoints
    done = f"The newest weights are in {files.newest}, those of the highest validation accuracy in {files.best}."
    return run.end(loop, processes, stop, save_dir, done)


def compile_encoder(model: CANINEOccupationClassifier, max_len: int) -> None:
    """Compile the encoding of a group of rows, in place: a graph for each width, for any number of rows."""
    widths = -(-max_len // COMPILED_WIDTH_STEP)
    # In training and in evaluation.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * widths)
    # Compiled random numbers are drawn one by one on a CPU, which takes longer than all that compiling saves.
    cpu = model.out.weight.device.type == "cpu"
    compiled = torch.compile(model.encode, options={"fallback_random": True} if cpu else None)

    def encode(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tensors = input_ids.contiguous(), attention_mask.contiguous()
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return compiled(*tensors)

    model.encode = encode


def _model(args: argparse.Namespace, num_classes: int) -> CANINEOccupationClassifier:
    source = encoder_source(args.model_domain if args.encoder == DEFAULT_ENCODER else args.encoder)
    from_scratch = "encoder" in source
    if from_scratch:
        source["encoder"].update({"initializer_range": _SCRATCH_SCALE, **_NO_DROPOUT})
    model = CANINEOccupationClassifier(num_classes, dropout_rate=args.dropout, **source)
    if from_scratch:
        nn.init.constant_(model.out.bias, -math.log(num_classes))
    # The pooled encoding does not depend on these: they get no gradient, and several processes must not wait for one.
    model.basemodel.final_char_encoder.requires_grad_(False)
    model.basemodel.projection.requires_grad_(False)
    return model
