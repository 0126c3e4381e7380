"""The numbers that a command line may hold: how they are written, and the range of each flag."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from histocc.errors import Problems
from histocc.files.entries import MOST
from histocc.training.checkpoint_schema import MOST_RATE

_WHOLE = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Beyond this Python refuses to read a number, and nobody can read a message.
_MOST_DIGITS = 60


@dataclass(frozen=True)
class Range:
    """The numbers that a flag allows.

    Parameters
    ----------
    low, high
        The ends.
    hint
        Ends a message, where it helps.
    between
        The ends are not among them.
    """

    low: float
    high: float
    hint: str = ""
    between: bool = False

    def __str__(self) -> str:
        return f"{_spelt(self.low)}..{_spelt(self.high)}" + (" without the ends" if self.between else "")

    def fault(self, value: float) -> str | None:
        """What is wrong with a value, to be put behind the name of its flag; None if nothing is."""
        if self.low <= value <= self.high and not (self.between and value in (self.low, self.high)):
            return None
        return f"is {value}; it must lie in {self}" + (f" ({self.hint})" if self.hint else "")


def _spelt(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


_STEPS = Range(1, MOST)
_MANY = Range(1, 1_000_000)
_SHARE = Range(0, 1, "5 % is 0.05")
_NO_EFFECT = Range(-1, 1_000_000)

# By the names of the options. What fits the machine is another matter: these keep out slips of the keyboard, and
# numbers that no computer counts to.
RANGES: dict[str, Range] = {
    "augmentation_prob": _SHARE,
    "batch_size": _MANY,
    "block_size": Range(1, 127, "the decoder takes labels of 129 tokens, two of them marks"),
    "decoder_dim_feedforward": Range(1, 65_536),
    "description_prob": _SHARE,
    "dropout": _SHARE,
    "eval_decode_samples": Range(0, MOST),
    "eval_interval": _STEPS,
    "grad_accum_steps": _MANY,
    "keep_checkpoints": _MANY,
    "learning_rate": Range(0, MOST_RATE, "2e-05 is usual"),
    "local_rank": _NO_EFFECT,
    "log_interval": _STEPS,
    "max_len": Range(4, 1_048_576, "the encoder joins 4 characters to one position and needs as many"),
    "max_steps": _STEPS,
    "max_val_samples": _STEPS,
    "num_epochs": _MANY,
    "num_transformations": Range(0, 100),
    "num_workers": Range(0, 1024),
    "prefetch_factor": Range(1, 1024),
    "review_rows": Range(1, MOST),
    "sample_size": Range(0, 18, "it is a power of ten: 4 is 10,000 rows"),
    "save_interval": _STEPS,
    "seed": Range(0, 2**63 - 1),
    "seq2seq_weight": _SHARE,
    "share_val": Range(0, 1, "0.1 is a tenth of the rows", between=True),
    "start_timeout": Range(1, 86_400, "seconds"),
    "threshold": _SHARE,
    "top_k": _MANY,
    "unk_lang_prob": _SHARE,
    "upsample_minimum": Range(0, 1_000_000),
    "warmup_pct": _SHARE,
    "warmup_steps": Range(0, MOST),
    "world_size": _NO_EFFECT,
}


def whole_number(text: str) -> int:
    """Argument type: a whole number in ASCII digits."""
    if not _WHOLE.fullmatch(text) or len(text) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{text[:_MOST_DIGITS]!r} is not a whole number")
    return int(text)


def real_number(text: str) -> float:
    """Argument type: a number in ASCII digits, such as 0.05 or 2e-05."""
    if not _NUMBER.fullmatch(text) or len(text) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(f"{text[:_MOST_DIGITS]!r} is not a number")
    return float(text)


def check_numbers(values: Mapping[str, Any], problems: Problems) -> None:
    """Note every flag whose number lies outside its range; `values` are by name, None is not given."""
    for name, allowed in RANGES.items():
        value = values.get(name)
        fault = None if value is None else allowed.fault(value)
        if fault is not None:
            problems.add(f"--{name.replace('_', '-')} {fault}")
