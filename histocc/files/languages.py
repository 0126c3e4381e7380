"""Languages: the codes that the published models know, and the other ways in which people write them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from histocc.datasets import DATA_FOLDER
from histocc.errors import UsageError
from histocc.files.tables import column_names, read_chunks


class LanguageNames:
    """What language a spelling means: ISO 639 codes and English names, whatever the case, and a list of one's own.

    Parameters
    ----------
    own
        Spelling -> code of languages, as `read_language_map` gives it; they win.
    """

    def __init__(self, own: Mapping[str, str] | None = None) -> None:
        self._own = dict(own or {})

    def code(self, spelling: str) -> str | None:
        """The code for a spelling; None if it is that of no known language."""
        folded = fold(spelling)
        return self._own.get(folded, _known().get(folded))


def fold(spelling: str) -> str:
    """A spelling without what does not matter: blanks around it, and case."""
    return spelling.strip().casefold()


@lru_cache(maxsize=1)
def _known() -> dict[str, str]:
    with (DATA_FOLDER / "languages.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["code"], row["spelling"]) for row in csv.DictReader(file)]
    return {fold(spelling): code for code, spelling in rows} | {code: code for code, _ in rows}


def read_language_map(path: str | Path) -> dict[str, str]:
    """Read a table of two columns, a spelling and the code that it means, whatever the columns are called.

    Returns
    -------
    dict[str, str]
        Code of each spelling, which is folded as `fold` does.

    Raises
    ------
    UsageError
        If the file cannot be read, has not two columns, lacks a code, or gives two codes to a spelling.
    """
    names = column_names(path)
    if len(names) != 2 or len(set(names)) != 2:
        raise UsageError(
            f"{path} has the columns {', '.join(map(repr, names))}, and should have two: how a language is spelt, and "
            f"the code that it means, such as spelling,code and Deutsch,ge"
        )
    found: dict[str, str] = {}
    for chunk in read_chunks(path, names, progress=False):
        spellings, codes = (chunk[name].tolist() for name in names)
        for row, spelling, code in zip(chunk.row_numbers.tolist(), spellings, codes):
            code = code.strip()
            if not code:
                raise UsageError(f"{path}, row {row}: {spelling!r} has no code; write unk for an unknown language")
            if found.setdefault(fold(spelling), code) != code:
                raise UsageError(
                    f"{path}, row {row}: {spelling!r} means {code!r} here and {found[fold(spelling)]!r} further up: "
                    f"keep one of the rows"
                )
    return found
