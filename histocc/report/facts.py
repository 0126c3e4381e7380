"""What a run is, in plain values: noted beside its model when it starts, and read again by whoever passes it on."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from histocc.errors import UsageError
from histocc.files import entries, run_folder
from histocc.files.entries import Entries
from histocc.files.json_files import write_json
from histocc.files.ordinary import IS_MISSING, fault_of_file

ADVICE = "Move the file away: the card then says less of the run"


@dataclass(frozen=True)
class RunFacts:
    """What a run is.

    Attributes
    ----------
    command
        The command line as it was given.
    kind
        'mixer' or 'flat'.
    system
        The coding system.
    codes, codes_a_row
        How many codes there are, and how many a row has at most.
    max_len
        Characters of a text with its language, at most.
    encoder
        What the encoder was called.
    total_steps
        Optimizer steps of the whole run.
    tables
        What it was trained and validated on: what for -> files.
    rows
        What for -> rows.
    languages
        Language -> training rows; empty where it is not known.
    header
        What the run said of itself at its start.
    changed
        Flags that differ from the defaults, with their values.
    settings
        All flags with the values in force.
    versions
        Of Python and the packages that count.
    """

    kind: str
    system: str
    codes: int
    codes_a_row: int
    max_len: int
    command: str = ""
    encoder: str = ""
    total_steps: int = 0
    tables: Mapping[str, list[str]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    header: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Note them in a run's folder. Raises OSError where that cannot be done."""
        write_json(folder / run_folder.RUN_FACTS, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> RunFacts | None:
        """What is noted in a folder; None where nothing is.

        Raises
        ------
        UsageError
            The file cannot be read, or an entry of it holds what is none.
        """
        path = folder / run_folder.RUN_FACTS
        values = read_json(path, ADVICE)
        if values is None:
            return None
        found = Entries(path, ADVICE)
        values = found.check("all of it", values, entries.mapping) or {}
        checked = {f.name: found.take(values, f.name, _CHECKS[f.name]) for f in fields(cls)}
        found.raise_if_any()
        return cls(**checked)


_TEXTS = entries.mapping_of(entries.text)
_COUNTS = entries.mapping_of(entries.whole())
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "kind": entries.one_of("mixer", "flat"),
    **dict.fromkeys(("system", "command", "encoder"), entries.text),
    **dict.fromkeys(("codes", "codes_a_row", "max_len", "total_steps"), entries.whole()),
    "tables": entries.mapping_of(entries.list_of(entries.text)),
    **dict.fromkeys(("rows", "languages"), _COUNTS),
    **dict.fromkeys(("header", "versions"), _TEXTS),
    **dict.fromkeys(("changed", "settings"), entries.mapping_of(entries.plain)),
}


def read_json(path: Path, advice: str) -> Any:
    """What a JSON file holds; None where there is no such file. Raises UsageError where it cannot be read."""
    fault = fault_of_file(path)
    if fault == IS_MISSING:
        return None
    if fault is None:
        try:
            return json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            fault = f"cannot be read: {error}"
    raise UsageError(f"{path}: {fault}. {advice}")


def versions() -> dict[str, str]:
    """Of Python and the packages on which the numbers of a run depend."""
    from histocc import __version__

    packages = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return {"histocc": __version__, "Python": platform.python_version(), **packages}
