"""Settings from a file, as a run writes them to ``args.yaml``: a line for each flag, its name and its value as JSON."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from histocc.errors import Problems, UsageError, did_you_mean
from histocc.files.entries import shown
from histocc.files.ordinary import IS_MISSING, fault_of_file, near_names
from histocc.runs.options import NO_SETTINGS
from histocc.runs.parser import ScriptParser
from histocc.runs.ranges import RANGES, whole_number

# The flags in whose place another one is given: on the command line it takes the place of either in the file.
_ALTERNATIVES = {
    "warmup_pct": ("warmup_steps",),
    "warmup_steps": ("warmup_pct",),
    "language": ("language_col",),
    "language_col": ("language",),
    "num_epochs": ("max_steps",),
}
_LINE = re.compile(r"([A-Za-z][\w-]*):[ \t]+(\S.*)")
_LONGEST_EXAMPLE = 200
_FORM = 'such as batch_size: 64 or save_dir: "runs/a", as args.yaml has them'


def read_config(path: str, parser: ScriptParser) -> dict[str, Any]:
    """The settings of a file, checked as flags are, by the names that the parser gives them.

    Parameters
    ----------
    path
        A file of lines ``name: value``, where the value is JSON; blank lines and lines that begin with ``#`` are
        passed over. Names are those of flags, other spellings among them, with ``_`` or ``-``.
    parser
        Knows the flags.

    Raises
    ------
    UsageError
        The file cannot be read, a line has another form, or an entry is unknown, given twice, or no value of its flag;
        all of it at once, with file and line.
    """
    if not path:
        raise UsageError("--config is given an empty text; give a value, or leave the flag out")
    problems = Problems()
    found: dict[str, Any] = {}
    for number, line in enumerate(_lines(Path(path)), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"{path}, line {number}"
        entry = _LINE.fullmatch(line.rstrip())
        if entry is None:
            problems.add(f"{place}: {shown(line.strip())} is no line of the form name: value, {_FORM}")
            continue
        name = entry[1]
        action = parser.action_of(f"--{name.replace('_', '-')}") or parser.action_of(f"--{name}")
        opposite = action is not None and action.nargs == 0 and name.replace("-", "_") == f"no_{action.dest}"
        if action is None or action.dest in NO_SETTINGS or opposite:
            near = did_you_mean(action.dest if action else name, set(parser.settings()) - set(NO_SETTINGS))
            problems.add(f"{place}: {parser.prog} has no setting {shown(name)}{near}")
        elif action.dest in found:
            problems.add(f"{place}: the entry {name} is given twice; keep one of them")
        else:
            try:
                value = json.loads(entry[2], parse_constant=_refuse_constant)
            except (ValueError, RecursionError):
                form = _form_of(name, entry[2], action)
                problems.add(f"{place}: the value of {name}, {shown(entry[2])}, is no JSON: {form}")
                continue
            fault = _fault(value, action)
            if fault is not None:
                if isinstance(value, str) and action.nargs in ("+", "*"):
                    fault += f": {_form_of(name, value, action)}"
                problems.add(f"{place}: the entry {name} {fault}")
            found[action.dest] = value
    problems.raise_if_any()
    return found


def without_alternatives(settings: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Settings of a file without those in whose place a flag is given on the command line."""
    dropped = {other for name in given for other in _ALTERNATIVES.get(name, ())}
    return {name: value for name, value in settings.items() if name not in dropped}


def _lines(path: Path) -> list[str]:
    fault = fault_of_file(path)
    if fault is not None:
        raise UsageError(f"--config {path} {fault}{near_names(path) if fault == IS_MISSING else ''}")
    try:
        # JSON may hold what `str.splitlines` takes for the end of a line.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _form_of(name: str, text: str, action: argparse.Action) -> str:
    """The right form of an entry, with a text that stands there bare; of a flag that takes no text, an example."""
    if action.type is not None or action.nargs == 0 or len(text) > _LONGEST_EXAMPLE or '"' in text:
        return _FORM
    value: Any = text
    if action.nargs in ("+", "*"):
        value = [part.strip(" []'") for part in text.split(",")]
    return f"write {name}: {json.dumps(value, ensure_ascii=False)}"


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _fault(value: Any, action: argparse.Action) -> str | None:
    """What is wrong with the value of an entry, to be put behind its name; None if nothing is."""
    expected = None
    if action.nargs == 0:
        if not isinstance(value, bool):
            expected = "true or false"
    elif value is None:
        if action.default is not None:
            expected = "a value"
    elif action.choices is not None:
        if value not in action.choices:
            expected = "one of " + ", ".join(map(json.dumps, action.choices))
    elif action.type is not None:
        whole = action.type is whole_number
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not math.isfinite(value):
            expected = "a whole number" if whole else "a number"
        elif (fault := RANGES[action.dest].fault(value)) is not None:
            return fault
    elif action.nargs in ("+", "*"):
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            expected = "a list of texts"
        elif not value and action.default != []:
            expected = "a list of at least one text"
    elif not isinstance(value, str):
        expected = "a text in double quotes"
    return None if expected is None else f"holds {shown(value)}; {expected} is expected"
