"""What codes mean, for people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from histocc.errors import UsageError
from histocc.files.tables import as_text, read_chunks

if TYPE_CHECKING:
    import pandas as pd

CODE_COLUMN, DESCRIPTION_COLUMN = "system_code", "desc"
_ADVICE = f"name the columns {CODE_COLUMN!r} (codes) and {DESCRIPTION_COLUMN!r} (their descriptions)"


def read_descriptions(
    source: pd.DataFrame | str | os.PathLike[str] | Mapping[str, str] | None, digits: int | None = None
) -> dict[str, str]:
    """The description of each code.

    Parameters
    ----------
    source
        A data frame, or a CSV or Parquet file, with the columns ``system_code`` and ``desc``; or a mapping.
    digits
        The length of codes that may have lost their leading zeros.

    Raises
    ------
    UsageError
        A column is missing, or the file cannot be read.
    """
    if source is None:
        return {}
    pairs: list[tuple[str, str]] = []
    if isinstance(source, Mapping):
        pairs = [(as_text(code, decimals=False), as_text(text)) for code, text in source.items()]
    elif isinstance(source, (str, os.PathLike)):
        for chunk in read_chunks(source, [CODE_COLUMN, DESCRIPTION_COLUMN]):
            pairs += zip(chunk[CODE_COLUMN].tolist(), chunk[DESCRIPTION_COLUMN].tolist())
    else:
        missing = [name for name in (CODE_COLUMN, DESCRIPTION_COLUMN) if name not in source]
        if missing:
            raise UsageError(f"the table of descriptions has no column {missing[0]!r}: {_ADVICE}")
        pairs = [
            (as_text(code, decimals=False), as_text(text))
            for code, text in zip(source[CODE_COLUMN].tolist(), source[DESCRIPTION_COLUMN].tolist())
        ]
    return {
        code if digits is None or code.startswith("-") else code.zfill(digits): text for code, text in pairs if text
    }
