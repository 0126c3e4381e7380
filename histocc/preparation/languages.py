"""The languages of a table in the codes that the models know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.files.languages import LanguageNames
from histocc.preparation.diagnosis import EXAMPLES, count
from histocc.preparation.report import PreparationReport
from histocc.preparation.table import Interner, Table


def with_known_languages(table: Table, names: LanguageNames, report: PreparationReport) -> Table:
    """The table with one code for each language; what was read as what is noted in `report`.

    A missing language becomes `unk`. One that is not known stays as it is.
    """
    rows = np.bincount(table.languages, minlength=len(table.language_values)).tolist()
    known = Interner()
    number_of = np.empty(len(table.language_values), dtype=np.int32)
    mapped: list[str] = []
    strange: list[str] = []
    for i, spelling in enumerate(table.language_values):
        code = names.code(spelling)
        shown = f"({count(rows[i], 'row')})"
        if code is None and not spelling.strip():
            code = UNKNOWN_LANGUAGE
            report.rows_without_language += rows[i]
        elif code is None:
            code = spelling
            strange.append(f"{spelling!r} {shown}")
        elif code != spelling:
            report.languages_read[spelling] = code
            mapped.append(f"{spelling!r} as {code!r} {shown}")
        number_of[i] = known.number(code)
    if report.rows_without_language:
        report.notes.append(f"{count(report.rows_without_language, 'row')} without a language: {UNKNOWN_LANGUAGE!r}")
    if mapped:
        report.notes.append(
            f"Languages read as the codes that the models know: {_some(mapped)} (--language-map maps them otherwise)"
        )
    if strange:
        report.notes.append(
            f"Languages that the published models do not know, kept as they are: {_some(strange)} "
            f"(--language-map maps them)"
        )
    return replace(table, languages=number_of[table.languages], language_values=known.strings())


def _some(values: list[str]) -> str:
    more = f" and {len(values) - EXAMPLES:,} more" if len(values) > EXAMPLES else ""
    return ", ".join(values[:EXAMPLES]) + more
