"""What a command line asks for, as frozen values: made once, from then on the only form in which flags travel."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from histocc.processes.distributed import START_SECONDS

LOG_INTERVAL = 100
DEFAULT_ENCODER = "google/canine-s"
# Flags that say what to do with the others, and are no settings of a run.
NO_SETTINGS = ("help", "version", "config", "print_config")
WARMUP_SHARE = 0.05

T = TypeVar("T", bound="RunOptions")


def _compared(**extra: Any) -> Any:
    """A field that a checkpoint notes, so that a resumed run can say where its flags differ."""
    return field(metadata={"compared": True}, **extra)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The flags that all scripts share; field names are those of the flags.

    Attributes
    ----------
    kind
        The kind of model that is trained, 'mixer' or 'flat'.
    arguments
        All settings as they were given, for ``args.yaml``.
    command
        The command line as it was given.
    defaults
        The value of each flag where it is not given.
    """

    kind: ClassVar[str]

    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    command: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict, repr=False)

    save_dir: str | None = None
    demo: bool = False
    print_config: bool = False
    initial_checkpoint: str | None = None
    seed: int = 42
    encoder: str = DEFAULT_ENCODER
    compile: bool = False
    tf32: bool = True
    keep_checkpoints: int | None = None
    log_interval: int = LOG_INTERVAL
    save_interval: int = 5000
    num_workers: int | None = None
    prefetch_factor: int | None = None
    tensorboard: bool = False
    start_timeout: int = START_SECONDS

    num_epochs: int = _compared(default=50)
    learning_rate: float = _compared(default=2e-5)
    batch_size: int = _compared(default=512)
    grad_accum_steps: int = _compared(default=1)
    dropout: float = _compared(default=0.0)
    max_len: int = _compared(default=128)
    warmup_pct: float | None = _compared(default=None)
    warmup_steps: int | None = _compared(default=None)
    max_steps: int | None = _compared(default=None)
    max_val_samples: int | None = _compared(default=None)
    use_amp: bool = _compared(default=False)
    amp_dtype: str = _compared(default="auto")

    @classmethod
    def from_namespace(cls: type[T], args: argparse.Namespace) -> T:
        """The options of a parsed command line."""
        given = {name: value for name, value in vars(args).items() if name not in NO_SETTINGS}
        flags = vars(args)
        return cls(arguments=dict(given), **{f.name: flags[f.name] for f in fields(cls) if f.name in flags})

    @property
    def folder(self) -> Path:
        """The save folder."""
        return Path(self.save_dir)

    @property
    def tables(self) -> dict[str, list[str]]:
        """What tables there are, and their files."""
        raise NotImplementedError

    @property
    def warmup_share(self) -> float | None:
        """Share of the steps that are warm-up; None where a number of steps is asked for."""
        if self.warmup_steps is not None:
            return None
        return WARMUP_SHARE if self.warmup_pct is None else self.warmup_pct

    def in_force(self: T, **values: Any) -> T:
        """The same options with the values that a resumed run uses in place of the flags'."""
        return replace(self, **values)

    def with_command(self: T, parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> T:
        """The same options with the command line `argv` (sys.argv's by default); `parser` has the script's defaults."""
        words = sys.argv[1:] if argv is None else argv
        command = shlex.join(["python", parser.prog, *map(str, words)])
        return replace(self, command=command, defaults=vars(parser.parse_args([])))

    def changed(self) -> dict[str, Any]:
        """The flags whose values in force are not the defaults."""
        shown = {**self.shown(), "warmup_pct": self.warmup_pct}
        return {n: value for n, value in shown.items() if n in self.defaults and value != self.defaults[n]}

    def shown(self) -> dict[str, Any]:
        """All flags with the values in force, for ``args.yaml``."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name in self.arguments}
        return {**self.arguments, **own, "warmup_pct": self.warmup_share}

    def compared(self) -> dict[str, Any]:
        """What a checkpoint notes of the flags, and a resumed run compares."""
        noted = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("compared")}
        return {**noted, "warmup_pct": self.warmup_share}


@dataclass(frozen=True, kw_only=True)
class MixerOptions(RunOptions):
    """The flags of a run of the mixer."""

    kind = "mixer"

    only_encoder: bool = False
    eval_interval: int = 1000
    eval_decode_samples: int = 2000
    save_each_epoch: bool = False
    freeze_encoder: bool = False
    decoder_dim_feedforward: int | None = None
    log_wandb: bool = False
    wandb_project_name: str = "histco-v2-mixer"

    seq2seq_weight: float = _compared(default=0.5)
    trim_padding: bool = _compared(default=False)


@dataclass(frozen=True, kw_only=True)
class TrainMixerOptions(MixerOptions):
    """The flags of train_mixer.py."""

    train_data: list[str] | None = None
    val_data: list[str] | None = None
    formatter: str = "hisco"
    target_col_naming: str | None = None
    target_cols: list[str] | None = None
    block_size: int = 5
    use_within_block_sep: bool = False
    key: str | None = None

    augmentation_prob: float = _compared(default=0.3)
    num_transformations: int = _compared(default=3)
    unk_lang_prob: float = _compared(default=0.25)
    fn_word_freq: str | None = _compared(default=None)

    @property
    def tables(self) -> dict[str, list[str]]:
        """What tables there are, and their files."""
        return {"training": self.train_data or [], "validation": self.val_data or []}


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(MixerOptions):
    """The flags of finetune.py."""

    dataset: str | None = None
    input_col: str = "occ1"
    target_cols: list[str] | None = None
    language: str = "unk"
    language_col: str | None = None
    language_map: str | None = None
    block_size: int = 5
    use_within_block_sep: bool = False
    allow_codes_shorter_than_block_size: bool = False
    drop_bad_labels: bool = False
    keep_missing_spellings: bool = False
    short_codes: list[str] = field(default_factory=list)
    pad_codes: bool = False
    drop_uncoded: bool = False
    all_codes_file: str | None = None
    all_codes_col: str | None = None
    share_val: float = 0.1
    split_by: str | None = None
    val_data: str | None = None
    prepare_only: bool = False
    overwrite: bool = False
    keep_prepared: bool = False
    descriptions_file: str | None = None
    descriptions_code_col: str | None = None
    descriptions_text_col: str | None = None
    descriptions_lang_col: str | None = None

    include_descriptions: bool = _compared(default=False)
    description_prob: float = _compared(default=0.5)
    description_template: str = _compared(default="{occ} [DESC: {desc}]")

    @property
    def tables(self) -> dict[str, list[str]]:
        """What tables there are, and their files."""
        given = {"data": self.dataset, "validation": self.val_data}
        return {what: [file] for what, file in given.items() if file} or {"prepared": [str(self.folder)]}


@dataclass(frozen=True, kw_only=True)
class FlatOptions(RunOptions):
    """The flags of train.py."""

    kind = "flat"

    train_data: list[str] = field(default_factory=list)
    model_name: str | None = None
    model_domain: str = "Multilingual_CANINE"

    sample_size: int = _compared(default=10)
    upsample_minimum: int = _compared(default=0)
    augmentation_prob: float = _compared(default=0.1)
    skip_insert_words: bool = _compared(default=False)

    @property
    def tables(self) -> dict[str, list[str]]:
        """What tables there are, and their files."""
        return {"data": list(self.train_data)}

    @property
    def name(self) -> str:
        """The name of the files of weights: as the flag says, or made of what the run is."""
        if self.model_name is not None:
            return self.model_name
        domain = Path(self.model_domain).name
        return f"CANINE_{domain}_sample_size_{self.sample_size}_lr_{self.learning_rate}_batch_size_{self.batch_size}"
