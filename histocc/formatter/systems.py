"""Coding systems: how codes are written, where tables carry them, and which code each class stands for.

A checkpoint holds its coding system as plain values (`CodingSystem.to_plain`), so that model, formatter and key are
rebuilt from the file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from histocc.datasets import hisco_codes
from histocc.errors import UsageError
from histocc.formatter.base import BlockFormatter
from histocc.formatter.general import (
    GENERAL_PURPOSE_CHARS,
    BlockyFormatter,
    construct_general_purpose_formatter,
)
from histocc.formatter.hisco import hisco_blocky5
from histocc.formatter.isco68 import isco68_blocky2
from histocc.formatter.occ1950 import occ1950_blocky2, occ1950_codes

GENERAL = "general"


@dataclass(frozen=True)
class CodingSystem:
    """A coding system.

    Parameters
    ----------
    name
        One of `SYSTEMS`, or 'general' for a system of the user's own.
    formatter
        Codes to tokens and back.
    columns
        Columns in which the rows of a table carry their codes, first code first.
    codes
        The code of each class, in order of the classes; None where the data will decide.
    """

    name: str
    formatter: BlockFormatter
    columns: tuple[str, ...]
    codes: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int:
        """C, the number of classes. Raises ValueError where `codes` are not known yet."""
        if self.codes is None:
            raise ValueError(f"the codes of the system {self.name!r} are not known yet")
        return len(self.codes)

    @property
    def key(self) -> dict[str, int] | None:
        """Class index of each code; None where the codes are not known yet."""
        return None if self.codes is None else {code: index for index, code in enumerate(self.codes)}

    @property
    def holds_classes(self) -> bool:
        """Whether the columns of a table hold class indices (HISCO) rather than the codes themselves."""
        return hasattr(self.formatter, "code_from_class")

    def with_key(self, key: Mapping[str, int]) -> CodingSystem:
        """The same system with the codes of a key, whose class indices are 0, 1, ..., n - 1."""
        return replace(self, codes=tuple(sorted(key, key=key.__getitem__)))

    def with_columns(self, columns: Sequence[str]) -> CodingSystem:
        """The same system in a table that calls the code columns otherwise; they may be fewer than K."""
        return replace(self, columns=tuple(columns))

    def to_plain(self) -> dict[str, Any]:
        """The system as plain values, see `from_plain`."""
        plain: dict[str, Any] = {
            "name": self.name,
            "columns": list(self.columns),
            "max_num_codes": self.formatter.max_num_codes,
            "block_size": self.formatter.block_size,
            "separator": self.formatter.sep_value,
            "codes": None if self.codes is None else list(self.codes),
        }
        if isinstance(self.formatter, BlockyFormatter):
            chars = tuple(self.formatter.map_char_idx)
            plain["within_block_separator"] = self.formatter.within_block_sep
            plain["characters"] = None if chars == GENERAL_PURPOSE_CHARS else list(chars)
        return plain

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> CodingSystem:
        """The system that `to_plain` described.

        Raises
        ------
        UsageError
            An entry is missing, of another type, or names a system that this version does not know.
        """
        try:
            name, columns = plain["name"], tuple(_texts(plain["columns"]))
            codes = None if plain["codes"] is None else tuple(_texts(plain["codes"]))
            if name == GENERAL:
                chars = plain["characters"]
                system = general_system(
                    _count(plain["block_size"]),
                    columns,
                    chars=None if chars is None else _texts(chars),
                    use_within_block_sep=plain["within_block_separator"] is not None,
                )
            else:
                system = coding_system(name).with_columns(columns)
            if codes is not None and len(set(codes)) != len(codes):
                raise ValueError("a code has two classes")
            return replace(system, codes=codes)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"this describes no coding system: {type(error).__name__}: {error}") from error


def _texts(values: Any) -> list[str]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"a list of texts is needed, not {values!r:.80}")
    return list(values)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 128:
        raise ValueError(f"a block size is a whole number from 1 to 128, not {value!r:.80}")
    return value


def _fixed(name: str, formatter: BlockFormatter, codes: Sequence[str] | None) -> CodingSystem:
    return CodingSystem(name, formatter, formatter.row_columns, None if codes is None else tuple(codes))


# A system without a list of codes gets its classes from the training data, or from a key.
SYSTEMS: dict[str, Callable[[], CodingSystem]] = {
    "hisco": lambda: _fixed("hisco", hisco_blocky5(), hisco_codes()),
    "occ1950": lambda: _fixed("occ1950", occ1950_blocky2(), occ1950_codes()),
    "isco68": lambda: _fixed("isco68", isco68_blocky2(), None),
}


def coding_system(name: str) -> CodingSystem:
    """One of the systems that ship.

    Raises
    ------
    UsageError
        There is none of this name.
    """
    if name not in SYSTEMS:
        raise UsageError(f"there is no coding system {name!r}: choose one of {', '.join(SYSTEMS)}, or {GENERAL}")
    return SYSTEMS[name]()


def general_system(
    block_size: int,
    columns: Sequence[str],
    *,
    chars: Sequence[str] | None = None,
    use_within_block_sep: bool = False,
    key: Mapping[str, int] | None = None,
) -> CodingSystem:
    """A system of the user's own, with the general-purpose formatter.

    Parameters
    ----------
    block_size
        S, tokens per code.
    columns
        The K code columns.
    chars, use_within_block_sep
        As for `construct_general_purpose_formatter`.
    key
        Class index of each code; the data decide without it.
    """
    formatter = construct_general_purpose_formatter(block_size, columns, chars, use_within_block_sep)
    system = CodingSystem(GENERAL, formatter, tuple(columns))
    return system if key is None else system.with_key(key)


def system_of(formatter: object, columns: Sequence[str]) -> CodingSystem | None:
    """The system that a formatter writes, in a table with these code columns; None for one of the user's own.

    Its codes are those of the system that ships; a general system has none yet.
    """
    known = [make().with_columns(columns) for make in SYSTEMS.values()]
    if type(formatter) is BlockyFormatter:
        chars, splits = tuple(formatter.map_char_idx), formatter.within_block_sep is not None
        known = [general_system(formatter.block_size, formatter.target_cols, chars=chars, use_within_block_sep=splits)]
    return next((system for system in known if _are_alike(formatter, system.formatter)), None)


def _are_alike(formatter: object, ours: BlockFormatter) -> bool:
    if type(formatter) is not type(ours):
        return False
    # A formatter looks up its list of classes when it is first needed, and may be given another one.
    lists = [getattr(each, "lookup_hisco", None) for each in (formatter, ours)]
    return lists[0] == lists[1] and vars(formatter) == vars(ours)
