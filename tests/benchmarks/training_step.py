"""Rows a second of training and evaluation of the mixer, data loading included, beside a plain loop in the same run.

On a GPU, full-size CANINE-S with random weights, B = 512, L = 128, HISCO, in less than 8 minutes:

    python -m tests.benchmarks.training_step --csv training_step.csv

On a CPU, a small encoder; the implementations take turns, so that a busy machine slows all of them down:

    OMP_NUM_THREADS=1 python -m tests.benchmarks.training_step
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from histocc.dataloader import (
    EvalBatchSampler,
    OccDatasetMixerInMemMultipleFiles,
    TrainBatchSampler,
    Workers,
    make_loader,
)
from histocc.formatter import PAD_IDX, hisco_blocky5
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.model_assets import Seq2SeqMixerOccCANINE
from histocc.runs.mixer import compile_model
from histocc.seq2seq_mixer_engine import build_loop, evaluate_figures
from histocc.training.context import Plan, RunContext
from histocc.training.precision import set_tf32
from histocc.training.schedule import linear_schedule
from tests.benchmarks.data_path import write_table
from tests.oracles.plain_rows import PlainRows
from tests.oracles.plain_training import PlainMixer, evaluate_plainly, forward, losses, train_plainly

CLASSES = 1919
FORMATTER = hisco_blocky5()
ENCODERS: dict[str, dict[str, Any]] = {
    "canine-s": {},
    "small": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "num_hash_functions": 4,
        "num_hash_buckets": 512,
        "max_position_embeddings": 512,
    },
}
# One pass over 15.76 million rows takes 1/50 of a day.
TARGET_ROWS_PER_SECOND = 9_120
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


@dataclass(frozen=True)
class Setting:
    """What is measured: the plain loop, or this package's with a precision, compiled or not, trimmed or not."""

    precision: str = "float32"
    compile: bool = False
    trim: bool = False
    plain: bool = False

    @property
    def name(self) -> str:
        extras = [", compiled"] * self.compile + [", trimmed"] * self.trim
        return ("plain loop, " if self.plain else "") + self.precision + "".join(extras)


@dataclass
class Burst:
    """What one burst of training or evaluation came to."""

    rows: int = 0
    batches: int = 0
    positions: int = 0
    seconds: float = 0.0
    seconds_data: float = 0.0

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


@dataclass
class Clocked:
    """A loader that stops after so many seconds, and notes rows, batches and how long it kept its user waiting."""

    loader: Any
    seconds: float
    burst: Burst
    batches: int | None = None

    def __post_init__(self) -> None:
        self.sampler = self.loader.sampler

    def __iter__(self) -> Iterator[dict[str, Any]]:
        end = time.perf_counter() + self.seconds
        while True:
            asked = time.perf_counter()
            for batch in islice(self.loader, self.batches):
                now = time.perf_counter()
                self.burst.seconds_data += now - asked
                self.burst.rows += len(batch["input_ids"])
                self.burst.batches += 1
                self.burst.positions += batch["input_ids"].numel()
                yield batch
                asked = time.perf_counter()
                if asked >= end:
                    return
            if self.batches is not None:
                return


@dataclass
class Contender:
    """One setting, ready to train and to evaluate."""

    setting: Setting
    train: Callable[[Any], Any]
    evaluate: Callable[[Any], Any]
    loader: Any
    eval_loader: Any
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    trained: list[Burst] = field(default_factory=list)
    evaluated: list[Burst] = field(default_factory=list)
    peak_bytes: int = 0

    def burst(self, seconds: float, *, evaluate: bool = False, batches: int | None = None) -> Burst:
        """Train or evaluate for so many seconds, or for so many batches."""
        burst = Burst()
        loader = Clocked(self.eval_loader if evaluate else self.loader, seconds, burst, batches)
        tf32 = self.setting.precision not in ("float32",)
        set_tf32(tf32)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        (self.evaluate if evaluate else self.train)(loader)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            # Other contenders' models lie on the device as well, and do not count.
            peak = torch.cuda.max_memory_allocated() - before + self._held_bytes()
            self.peak_bytes = max(self.peak_bytes, peak)
        burst.seconds = time.perf_counter() - start
        return burst

    def _held_bytes(self) -> int:
        parameters = list(self.model.parameters())
        state = [v for s in self.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
        gradients = [p.grad for p in parameters if p.grad is not None]
        return sum(t.numel() * t.element_size() for t in (*parameters, *gradients, *state) if t.is_cuda)


def make_model(encoder: str, plain: bool) -> Seq2SeqMixerOccCANINE:
    """The mixer with random weights, equal for equal encoders."""
    from transformers import CanineConfig

    torch.manual_seed(0)
    config = CanineConfig(**ENCODERS[encoder])
    return Seq2SeqMixerOccCANINE("", FORMATTER.num_classes, CLASSES, encoder=config, fast_encoder=not plain)


def make_contender(setting: Setting, args: argparse.Namespace, files: list[str]) -> Contender:
    """Model, optimizer, schedule and loaders of a setting, as the training scripts build them."""
    device = torch.device(args.device)
    model = make_model(args.encoder, setting.plain).to(device)
    total_steps = 10**9
    if setting.plain:
        return _plain(setting, args, files, PlainMixer(model), device, total_steps)

    loss_fn = LossMixer(BlockOrderInvariantLoss(PAD_IDX), nn.BCEWithLogitsLoss())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    data = [
        OccDatasetMixerInMemMultipleFiles(files, FORMATTER, None, args.max_len, CLASSES, training=training)
        for training in (True, False)
    ]
    workers = Workers(args.num_workers, pin_memory=device.type == "cuda", persistent=True)
    lengths = data[0].padded_lengths if setting.trim else None
    loader = make_loader(data[0], TrainBatchSampler(len(data[0]), args.batch_size, seed=42, lengths=lengths), workers)
    eval_loader = make_loader(data[1], EvalBatchSampler(len(data[1]), args.batch_size), workers)
    use_amp = setting.precision.endswith("16")
    amp_dtype = setting.precision if use_amp else "auto"
    context = RunContext.on(device, use_amp=use_amp, amp_dtype=amp_dtype, seed=1)
    schedule = linear_schedule(optimizer, 0, total_steps)
    loop = build_loop(model, None, loss_fn, optimizer, schedule, Plan(total_steps, log_interval=None), context)
    if setting.compile:
        compile_model(model, args.max_len if setting.trim else None)

    def evaluate(clocked: Clocked) -> None:
        evaluate_figures(model, clocked, loss_fn, context)

    return Contender(setting, loop.run_epoch, evaluate, loader, eval_loader, device, model, optimizer)


def _plain(
    setting: Setting, args: argparse.Namespace, files: list[str], model: nn.Module, device: torch.device, steps: int
) -> Contender:
    data = OccDatasetMixerInMemMultipleFiles(files, FORMATTER, None, args.max_len, CLASSES, training=False)
    frame = data.frame.astype(dict.fromkeys(FORMATTER.row_columns, "float64"))
    loaders = [
        DataLoader(
            PlainRows(frame, FORMATTER, args.max_len, CLASSES, training=training),
            args.batch_size,
            shuffle=training,
            num_workers=args.plain_workers,
            pin_memory=device.type == "cuda",
        )
        for training in (True, False)
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    scheduler = linear_schedule(optimizer, 0, steps)
    amp = setting.precision.endswith("16")

    def train(clocked: Clocked) -> None:
        autocast = torch.autocast(device.type, getattr(torch, setting.precision)) if amp else nullcontext()
        train_plainly(model, clocked, FORMATTER, optimizer, scheduler, device, autocast)

    def evaluate(clocked: Clocked) -> None:
        evaluate_plainly(model, clocked, FORMATTER, device)

    return Contender(setting, train, evaluate, loaders[0], loaders[1], device, model, optimizer)


def flops_per_row(encoder: str, max_len: int) -> float:
    """Products in a forward and backward pass of one row, 2 FLOP per multiplication and addition.

    Counted without data, for two rows; lookups, norms, the loss and the optimizer are not counted.
    """
    with torch.device("meta"):
        model = make_model(encoder, plain=False)
        batch = {
            "input_ids": torch.ones(2, max_len, dtype=torch.int64),
            "attention_mask": torch.ones(2, max_len, dtype=torch.int64),
            "targets_seq2seq": torch.ones(2, FORMATTER.max_seq_len, dtype=torch.int64),
        }
        with FlopCounterMode(display=False) as counter:
            out_seq2seq, out_linear, _ = forward(model, batch, torch.device("meta"))
            (out_seq2seq.sum() + out_linear.sum()).backward()
    return counter.get_total_flops() / 2


def settings_of(args: argparse.Namespace) -> list[Setting]:
    """Plain loops first, then the combinations that were asked for, quick and telling ones before others.

    Trimmed batches come in up to eight shapes, each compiled for some minutes: only if nothing else is asked for.
    """
    flags = {"off": (False,), "on": (True,), "both": (False, True)}
    only = args.compile == args.trim == "on"
    chosen = [
        Setting(precision, compiled, trim)
        for compiled in flags[args.compile]
        for trim in flags[args.trim]
        for precision in args.precision
        if only or not (compiled and trim)
    ]
    # What would be used on a GPU is compiled first, in case that time runs out.
    chosen.sort(key=lambda setting: (setting.compile, setting.compile and not setting.precision.endswith("16")))
    return [Setting(p, plain=True) for p in args.plain] + chosen


def summary(contender: Contender, reference: Contender | None, args: argparse.Namespace, flop: float) -> dict[str, Any]:
    """One row of the table: medians over the bursts; ratios are medians of the ratios of neighbouring bursts."""
    bursts = contender.trained
    rate = statistics.median(b.rows_per_second for b in bursts)
    total = Burst(
        *(sum(getattr(b, name) for b in bursts) for name in ("rows", "batches", "positions", "seconds", "seconds_data"))
    )
    row: dict[str, Any] = {
        "setting": contender.setting.name,
        "rows_per_second": round(rate, 1),
        "ms_per_step": round(1e3 * statistics.median(b.seconds / b.batches for b in bursts), 2),
        "data_wait_pct": round(100 * total.seconds_data / total.seconds, 1),
        # With trimmed batches only the positions that were computed count.
        "tflops": float(f"{rate * flop * total.positions / (total.rows * args.max_len) / 1e12:.4g}"),
        "peak_gib": round(contender.peak_bytes / 2**30, 2) if contender.peak_bytes else "",
        "speedup": "",
        "eval_rows_per_second": "",
        "eval_speedup": "",
        "target_pct": "" if args.encoder != "canine-s" else round(100 * rate / TARGET_ROWS_PER_SECOND, 1),
    }
    if contender.evaluated:
        row["eval_rows_per_second"] = round(statistics.median(b.rows_per_second for b in contender.evaluated), 1)
    if reference is not None:
        row["speedup"] = _ratio(contender.trained, reference.trained)
        if contender.evaluated:
            row["eval_speedup"] = _ratio(contender.evaluated, reference.evaluated)
    return row


def _ratio(ours: list[Burst], theirs: list[Burst]) -> float:
    return round(statistics.median(a.rows_per_second / b.rows_per_second for a, b in zip(ours, theirs)), 2)


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    headings = {
        "setting": "setting",
        "rows_per_second": "rows/s",
        "ms_per_step": "ms/step",
        "data_wait_pct": "data wait %",
        "tflops": "TFLOP/s",
        "peak_gib": "peak GiB",
        "speedup": "x plain",
        "eval_rows_per_second": "eval rows/s",
        "eval_speedup": "x plain",
        "target_pct": "% of target",
    }
    cells = [[str(row[name]) for name in headings] for row in rows]
    widths = [max(len(h), *(len(c[i]) for c in cells)) for i, h in enumerate(headings.values())]
    for line in [list(headings.values()), *cells]:
        print("  ".join(f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(line, widths))))


def profile_step(contender: Contender, rows: int = 25) -> str:
    """What the operators of ten training steps cost, as torch's profiler tells it."""
    cuda = contender.device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
    with torch.profiler.profile(activities=activities) as trace:
        contender.burst(1e9, batches=10)
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    return trace.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=60)


def check_same_loss(args: argparse.Namespace, files: list[str]) -> None:
    """Both implementations have the same loss on the same batch, or the comparison would mean nothing."""
    device = torch.device("cpu")
    data = OccDatasetMixerInMemMultipleFiles(files, FORMATTER, None, args.max_len, CLASSES, training=False)
    batch = data.batch(list(range(8)), 0)
    items = data.__getitems__(list(range(8)))
    batch["targets_linear"] = torch.stack([item["targets_linear"] for item in items])
    values = []
    for plain in (True, False):
        model = make_model("small", plain).eval()
        model = PlainMixer(model) if plain else model
        out_seq2seq, out_linear, moved = forward(model, batch, device)
        values.append(losses(out_seq2seq, out_linear, moved, FORMATTER)[0].item())
    assert abs(values[0] - values[1]) < 1e-5 * values[0], values


def build_parser() -> argparse.ArgumentParser:
    """The command line; what depends on the device is filled in by `main`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=None, help="cpu or cuda (cuda where there is one)")
    parser.add_argument("--encoder", choices=ENCODERS, default=None, help="canine-s on a GPU, small on a CPU")
    parser.add_argument("--batch-size", type=int, default=None, help="512 on a GPU, 64 on a CPU")
    parser.add_argument("--max-len", type=int, default=None, help="128 on a GPU, 48 on a CPU")
    parser.add_argument("--data", nargs="+", default=None, help="HISCO tables for train_mixer.py (synthetic rows)")
    parser.add_argument("--rows", type=int, default=None, help="synthetic rows (200,000 on a GPU, 8,000 on a CPU)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=None, help="of this package's loop")
    parser.add_argument("--plain", nargs="*", choices=PRECISIONS, default=None, help="of the plain loop; none: no loop")
    parser.add_argument("--compile", choices=("off", "on", "both"), default="both")
    parser.add_argument("--trim", choices=("off", "on", "both"), default="both", help="--trim-padding")
    parser.add_argument("--num-workers", type=int, default=None, help="of this package's loader (4 on a GPU, else 0)")
    parser.add_argument("--plain-workers", type=int, default=0, help="of the plain loader; the original's default is 0")
    parser.add_argument("--seconds", type=float, default=None, help="of training per setting, all rounds together")
    parser.add_argument("--eval-seconds", type=float, default=None, help="of evaluation per setting; 0: none")
    parser.add_argument("--rounds", type=int, default=None, help="bursts per setting, the settings taking turns")
    parser.add_argument("--budget", type=float, default=330, help="seconds after which no further setting is begun")
    parser.add_argument("--profile", action="store_true", help="print torch's profile of every setting as well")
    parser.add_argument("--csv", default=None, help="file to write the table to")
    return parser


def fill_in(args: argparse.Namespace) -> argparse.Namespace:
    """Set what was not given, by device."""
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    cuda = args.device.startswith("cuda")
    choices = {
        "encoder": ("canine-s", "small"),
        "batch_size": (512, 64),
        "max_len": (128, 48),
        "rows": (200_000, 8_000),
        "precision": (["float32", "tf32", "bfloat16"], ["float32"]),
        "plain": (["float32", "bfloat16"], ["float32"]),
        "num_workers": (4, 0),
        "seconds": (15.0, 24.0),
        "eval_seconds": (5.0, 8.0),
        "rounds": (1, 12),
    }
    for name, (on_cuda, on_cpu) in choices.items():
        if getattr(args, name) is None:
            setattr(args, name, on_cuda if cuda else on_cpu)
    if cuda:
        args.num_workers = min(args.num_workers, max(1, (os.cpu_count() or 2) - 1))
    return args


def warm_up(contender: Contender, args: argparse.Namespace) -> float:
    """Run every shape once, so that no burst compiles; returns the seconds it took."""
    start = time.perf_counter()
    # Trimmed batches come in several shapes: whole windows of the sampler show them all.
    whole = 40 if contender.setting.trim and contender.setting.compile else 4
    contender.burst(1e9, batches=whole)
    if args.eval_seconds:
        contender.burst(1e9, evaluate=True, batches=2)
    return time.perf_counter() - start


def measure(args: argparse.Namespace, files: list[str]) -> list[dict[str, Any]]:
    """All rows of the table."""
    began = time.perf_counter()
    flop = flops_per_row(args.encoder, args.max_len)
    print(f"{flop / 1e9:.3g} GFLOP a row, forward and backward, at L = {args.max_len}")
    check_same_loss(args, files)
    contenders: list[Contender] = []
    sequential = args.rounds == 1
    for setting in settings_of(args):
        if time.perf_counter() - began > args.budget:
            print(f"{setting.name}: left out, {args.budget:.0f} s are over (--budget)")
            continue
        contender = make_contender(setting, args, files)
        seconds = warm_up(contender, args)
        print(f"{setting.name}: ready after {seconds:.1f} s", flush=True)
        contenders.append(contender)
        if sequential:
            _measure_once(contender, args)
            print(f"{setting.name}: {contender.trained[-1].rows_per_second:,.0f} rows/s", flush=True)
            if args.profile:
                print(profile_step(contender))
            _release(contender)
    if not sequential:
        for _ in range(args.rounds):
            for contender in contenders:
                _measure_once(contender, args)
        if args.profile:
            for contender in contenders:
                print(contender.setting.name, profile_step(contender), sep="\n")
    reference = contenders[0] if contenders[0].setting.plain else None
    return [summary(contender, reference, args, flop) for contender in contenders]


def _measure_once(contender: Contender, args: argparse.Namespace) -> None:
    contender.trained.append(contender.burst(args.seconds / args.rounds))
    if args.eval_seconds:
        contender.evaluated.append(contender.burst(args.eval_seconds / args.rounds, evaluate=True))


def _release(contender: Contender) -> None:
    """Give the device's memory back."""
    contender.train = contender.evaluate = contender.loader = contender.eval_loader = contender.model = None
    contender.optimizer = None
    torch._dynamo.reset()
    if contender.device.type == "cuda":
        torch.cuda.empty_cache()


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print the table, write the CSV; return the rows of the table."""
    args = fill_in(build_parser().parse_args(argv))
    device = (
        torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{device}; encoder {args.encoder}, B = {args.batch_size}, L = {args.max_len}, HISCO; torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        files = args.data
        if files is None:
            files = [str(Path(folder) / "rows.csv")]
            write_table(Path(files[0]), args.rows)
        rows = measure(args, files)
    show(rows)
    if args.encoder == "canine-s":
        best = max(rows, key=lambda row: row["rows_per_second"])
        factor = TARGET_ROWS_PER_SECOND / best["rows_per_second"]
        print(f"target: {TARGET_ROWS_PER_SECOND:,} rows/s (50 passes over 15.76 million rows in a day); ", end="")
        print(f"reached by {best['setting']}" if factor <= 1 else f"{best['setting']} lacks a factor of {factor:.2f}")
    if args.csv:
        with open(args.csv, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return rows


if __name__ == "__main__":
    main()
