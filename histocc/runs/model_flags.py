"""The flags that name a model and say what its file does not, which `predict`, `evaluate` and `export` share."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.errors import UsageError
from histocc.files import console
from histocc.files.languages import read_language_map
from histocc.prediction.coders import METHODS
from histocc.prediction.languages import KnownLanguages
from histocc.prediction.loaded import LoadedModel
from histocc.prediction.loading import load_model
from histocc.processes.distributed import Processes
from histocc.runs import command_line as cli
from histocc.runs.parser import ScriptParser
from histocc.runs.ranges import whole_number

if TYPE_CHECKING:
    from typing_extensions import Self

TABLE, ANSWER = "table", "answer"
ORIGINALS = "files of the original's scripts, which do not say it themselves"
# Flags that came after the others of their commands, for which abbreviations were in use.
LATER = ("--system", "--target-cols", "--block-size", "--use-within-block-sep", "--language-map")
# What prepared files call their column of languages.
_LANGUAGES = "lang"
GROUPS = (TABLE, cli.MODEL, ORIGINALS, ANSWER, cli.HARDWARE)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The flags that name a model; names are those of the flags."""

    model: str
    encoder: str | None = None
    system: str | None = None
    target_cols: list[str] | None = None
    block_size: int | None = None
    use_within_block_sep: bool = False
    tf32: bool = True

    @classmethod
    def from_namespace(cls, args: argparse.Namespace) -> Self:
        """The options of a parsed command line."""
        return cls(**{f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)})


@dataclass(frozen=True, kw_only=True)
class TableOptions(ModelOptions):
    """The flags of commands in which a model answers for the rows of a table."""

    input: str
    output: str
    input_col: str = "occ1"
    language: str | None = None
    language_col: str | None = None
    language_map: str | None = None
    method: str | None = None
    threshold: float | None = None
    batch_size: int = 256
    overwrite: bool = False
    use_amp: bool = False
    amp_dtype: str = "auto"


def add_model_flags(parser: ScriptParser, *, target_cols: bool = True) -> None:
    """Flags that name a model, and those for files of the original.

    `target_cols` is False where the command has a flag of this name.
    """
    parser.flag(
        cli.MODEL,
        "--model",
        required=True,
        metavar="FOLDER|FILE|NAME",
        help="run folder, checkpoint file, exported folder, or name of a published model (OccCANINE_s2s_mix, ...)",
    )
    parser.flag(
        ORIGINALS,
        "--system",
        default=None,
        metavar="NAME",
        help="coding system: hisco, occ1950, isco68, or any name for codes of one's own (hisco)",
    )
    if target_cols:
        parser.flag(
            ORIGINALS,
            "--target-cols",
            nargs="+",
            default=None,
            metavar="COLUMN",
            help="code columns that it was trained with, as given to finetune.py: so many codes has a text at most "
            "(NAME_1 .. NAME_4)",
        )
    parser.flag(
        ORIGINALS,
        "--block-size",
        type=whole_number,
        default=None,
        metavar="TOKENS",
        help="--block-size that it was trained with (the length of the key's longest code)",
    )
    parser.flag(ORIGINALS, "--use-within-block-sep", action="store_true", help="codes are lists such as 1,13,0,0")
    parser.flag(
        ORIGINALS,
        "--encoder",
        default=None,
        metavar="FOLDER",
        help="folder with the config.json of its encoder (CANINE-s)",
    )


def add_method_flags(parser: ScriptParser) -> None:
    """Flags that say how a model answers and computes."""
    parser.flag(
        ANSWER,
        "--method",
        choices=METHODS,
        default=None,
        help="flat: the flat head; greedy: the decoder, token by token; full: the decoder on every code of the key "
        "(greedy for models with a decoder, else flat)",
    )
    parser.flag(
        cli.HARDWARE,
        "--batch-size",
        type=whole_number,
        default=256,
        metavar="TEXTS",
        help="texts at a time; halved if they are too many for the memory",
    )
    cli.add_precision_arguments(parser, "compute")


def add_text_flags(parser: ScriptParser) -> None:
    """Flags that say where texts and languages stand."""
    parser.flag(
        TABLE,
        "--input",
        required=True,
        metavar="FILE",
        help="table with descriptions, CSV (UTF-8, commas) or Parquet",
    )
    parser.flag(TABLE, "--input-col", default="occ1", metavar="COLUMN", help="column of the descriptions")
    parser.flag(
        TABLE,
        "--language",
        default=None,
        metavar="CODE",
        help="language of all rows, or of those without one (unk)",
    )
    parser.flag(TABLE, "--language-col", default=None, metavar="COLUMN", help="column of the languages")
    parser.flag(
        TABLE,
        "--language-map",
        default=None,
        metavar="FILE",
        help="table of two columns: a language as it is spelt, its code; ISO codes and English names are known",
    )


def known_languages(loaded: LoadedModel, language_map: str | None) -> KnownLanguages:
    """Reads languages as the model knows them; raises UsageError where the list of one's own is no such list."""
    return KnownLanguages(loaded.languages, None if language_map is None else read_language_map(language_map))


def unused_languages(options: TableOptions, columns: Collection[str], loaded: LoadedModel) -> str | None:
    """A note where a table has languages that the model knows of and no flag names; None where nothing is left out."""
    knows_some = loaded.languages is None or set(loaded.languages) - {UNKNOWN_LANGUAGE}
    if options.language or options.language_col or _LANGUAGES not in columns or not knows_some:
        return None
    return (
        f"Column {_LANGUAGES!r} of {options.input} is not used: all rows are taken as language 'unk'. "
        f"--language-col {_LANGUAGES} reads it"
    )


def refuse_strange(known: KnownLanguages, loaded: LoadedModel, options: TableOptions) -> None:
    """Raise UsageError for languages of the table that the model does not know."""
    strange = known.strange()
    if strange:
        where = f"{f'column {options.language_col!r}' if options.language_col else '--language'} of {options.input}"
        listed = ", ".join(f"{name!r} ({rows:,} rows)" for name, rows in list(strange.items())[:10])
        raise UsageError(
            f"{where} names languages that the model does not know: {listed}. It knows "
            f"{', '.join(sorted(loaded.languages or ()))}, and unk for any other; correct them, map them with "
            "--language-map, or leave the language out"
        )


def load(options: ModelOptions, processes: Processes, device: torch.device, *, own: Iterable[str] = ()) -> LoadedModel:
    """The model that the flags name; what was assumed of it is said.

    Parameters
    ----------
    options
        The flags.
    processes
        The processes of the command, of which one speaks.
    device
        Where the model is to compute.
    own
        Names of flags that are the command's own matter as well, and so never needless.
    """
    flags = {
        "--system": options.system,
        "--target-cols": options.target_cols,
        "--block-size": options.block_size,
        "--use-within-block-sep": options.use_within_block_sep or None,
        "--encoder": options.encoder,
    }
    loaded = load_model(
        options.model,
        device,
        system=options.system,
        use_within_block_sep=options.use_within_block_sep,
        target_cols=options.target_cols,
        block_size=options.block_size,
        encoder=options.encoder,
        flags=[name for name, value in flags.items() if value is not None and name not in own],
    )
    if loaded.assumed is not None and processes.is_main:
        console.say(loaded.assumed)
    return loaded
