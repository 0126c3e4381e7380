"""Official descriptions of codes as plain dictionaries, under OCCPAST's names.

A mapping of descriptions is `code -> text`, or `code -> {language: text}` where the table has a column of languages;
the data set takes either. Codes are text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from histocc.dataloader.descriptions import DEFAULT_TEMPLATE, FALLBACK_LANGUAGE, NO_LANGUAGE, Descriptions
from histocc.errors import UsageError
from histocc.files.tables import as_text, columns_fault

if TYPE_CHECKING:
    import pandas as pd

DescriptionMap = Mapping[str, "str | Mapping[str, str]"]

_HISCO_NUMBER = re.compile(r"[0-9]{1,5}")


def load_descriptions_from_dict(mapping: Mapping[Any, Any]) -> dict[str, str | dict[str, str]]:
    """Descriptions from a dictionary whose codes may be of any type; what is blank is left out.

    Raises
    ------
    UsageError
        A description is neither a text nor texts by language.
    """
    texts: dict[str, str | dict[str, str]] = {}
    for code, own in mapping.items():
        if isinstance(own, Mapping):
            by_language = {as_text(lang): as_text(text) for lang, text in own.items() if as_text(text).strip()}
            if by_language:
                texts[as_text(code, decimals=False)] = by_language
        elif as_text(own).strip():
            texts[as_text(code, decimals=False)] = own
    return _plain(Descriptions(texts))


def load_descriptions_from_dataframe(
    df: pd.DataFrame, code_col: str, desc_col: str, lang_col: str | None = None
) -> dict[str, str | dict[str, str]]:
    """Descriptions from a DataFrame; of several descriptions of a code in a language the first counts.

    Raises
    ------
    UsageError
        A column is missing, or there is no description.
    """
    return _plain(Descriptions.of_frame(df, code_col, desc_col, lang_col))


def load_descriptions_from_csv(
    filepath: str | os.PathLike[str],
    code_col: str,
    desc_col: str,
    lang_col: str | None = None,
    encoding: str = "utf-8",
) -> dict[str, str | dict[str, str]]:
    """Descriptions from a CSV or, in UTF-8, a Parquet file; of several of a code in a language the first counts.

    Raises
    ------
    UsageError
        The file cannot be read, a column is missing, or there is no description.
    """
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig"):
        return _plain(Descriptions.read(filepath, code_col, desc_col, lang_col))
    import pandas as pd

    try:
        frame = pd.read_csv(filepath, dtype=str, keep_default_na=False, encoding=encoding)
    except (OSError, ValueError, LookupError) as error:
        raise UsageError(f"{filepath} cannot be read as CSV in {encoding}: {error}") from error
    return load_descriptions_from_dataframe(frame, code_col, desc_col, lang_col)


def get_description(code: Any, descriptions: DescriptionMap, default: str = "") -> str:
    """The description of a code, in English where there are several languages, else the first; `default` if none."""
    text = as_text(code, decimals=False)
    own = descriptions.get(text)
    if not own:
        return default
    return own if isinstance(own, str) else own.get(FALLBACK_LANGUAGE) or next(iter(own.values()))


def load_hisco_descriptions(include_special_codes: bool = True) -> dict[str, str]:
    """The titles of the HISCO codes, which this package does not have.

    Raises
    ------
    UsageError
        Always: it says where the titles come from and how to read them.
    """
    what = "codes, the special ones -1, -2 and -3 among them" if include_special_codes else "codes"
    raise UsageError(
        f"The titles of HISCO's {what} do not come with this package: save them as a table (see the History of Work "
        "project), and read it with load_descriptions_from_csv(file, code_col, desc_col), or name it with "
        "--descriptions-file"
    )


def get_hisco_description(
    hisco_code: Any, descriptions: DescriptionMap | None = None, default: str = "Unknown occupation"
) -> str:
    """The description of a HISCO code, written as a number or as text, with its leading zero or without.

    Without `descriptions`, which this package does not have (see `load_hisco_descriptions`), it is `default`.
    """
    text = as_text(hisco_code, decimals=False).strip()
    spellings = [text]
    if _HISCO_NUMBER.fullmatch(text):
        spellings += [text.zfill(5), str(int(text))]
    found = (get_description(spelling, descriptions or {}) for spelling in spellings)
    return next(filter(None, found), default)


def create_code_to_description_mapping() -> dict[str, str]:
    """From each HISCO code to its title, which this package does not have.

    Raises
    ------
    UsageError
        Always, as `load_hisco_descriptions`.
    """
    return load_hisco_descriptions()


def format_input_with_description(
    occ_text: str,
    hisco_code: Any,
    descriptions: DescriptionMap | None = None,
    format_template: str = DEFAULT_TEMPLATE,
) -> str:
    """The text joined by the description of its code; the text alone if there is none.

    Raises
    ------
    UsageError
        The template cannot be filled in.
    """
    template = Descriptions({}, template=format_template)
    description = get_hisco_description(hisco_code, descriptions, default="")
    return template.fill_in(occ_text, description) if description else occ_text


def add_descriptions_to_dataframe(
    df: pd.DataFrame,
    hisco_column: str = "hisco_1",
    description_column: str = "hisco_description",
    descriptions: DescriptionMap | None = None,
) -> pd.DataFrame:
    """A copy of the table with one more column, the description of each row's HISCO code; empty where there is none.

    Raises
    ------
    UsageError
        The table has no such column.
    """
    if hisco_column not in df.columns:
        raise UsageError(columns_fault("The table", list(df.columns), [hisco_column]))
    found = [get_hisco_description(code, descriptions, default="") for code in df[hisco_column].tolist()]
    return df.assign(**{description_column: found})


def _plain(descriptions: Descriptions) -> dict[str, str | dict[str, str]]:
    if not descriptions.multilingual:
        return {code: own[NO_LANGUAGE] for code, own in descriptions.texts.items()}
    return {code: dict(own) for code, own in descriptions.texts.items()}
