"""Official descriptions of codes, to be joined to what the sources say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from histocc.dataloader.rows import check_files
from histocc.errors import Problems, UsageError
from histocc.files.tables import as_text, cells_of, columns_fault, read_chunks

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_TEMPLATE = "{occ} [DESC: {desc}]"
FALLBACK_LANGUAGE = "en"
NO_LANGUAGE = ""


class Descriptions(Mapping[str, "str | dict[str, str]"]):
    """Descriptions by code, and by language where there are several; how often, and how, they are joined to a text.

    As a mapping it gives a code's description; where languages are told apart, its descriptions by language.

    Parameters
    ----------
    texts
        For each code its description, or its descriptions by language (the empty string where the language is not
        known).
    prob
        Probability with which a training row gets the description of its first code.
    template
        How text and description are joined; `{occ}` and `{desc}` stand for them.

    Attributes
    ----------
    texts
        The descriptions of each code by language.

    Raises
    ------
    UsageError
        `prob` is no probability or the template cannot be filled in.
    """

    def __init__(
        self,
        texts: Mapping[str, str | Mapping[str, str]],
        prob: float = 0.5,
        template: str = DEFAULT_TEMPLATE,
    ) -> None:
        problems = Problems()
        if not 0 <= prob <= 1:
            problems.add(f"The probability of a description is {prob}, but must lie in 0..1 (--description-prob).")
        try:
            template.format(occ="", desc="")
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            problems.add(
                f"The template {template!r} cannot be filled in ({type(error).__name__}: {error}): "
                "use {occ} for the text and {desc} for the description (--description-template)."
            )
        for code, own in texts.items():
            if not isinstance(own, (str, Mapping)):
                problems.add(f"The description of {code!r} is {own!r}, but must be a text, or texts by language.")
                break
        problems.raise_if_any()
        self.texts: dict[str, dict[str, str]] = {
            str(code): {NO_LANGUAGE: own} if isinstance(own, str) else dict(own) for code, own in texts.items()
        }
        self.prob = prob
        self.template = template

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        code_col: str | None,
        text_col: str | None,
        lang_col: str | None = None,
        prob: float = 0.5,
        template: str = DEFAULT_TEMPLATE,
    ) -> Descriptions:
        """Read a CSV or Parquet file; of several descriptions of a code in a language the first counts.

        Raises
        ------
        UsageError
            A column is not named, the file or a column is missing, or the table is empty.
        """
        problems = Problems()
        for name, flag in ((code_col, "--descriptions-code-col"), (text_col, "--descriptions-text-col")):
            if not name:
                problems.add(f"Name the column of {os.fspath(path)} with {flag}.")
        problems.raise_if_any()
        columns = [name for name in (code_col, text_col, lang_col) if name]
        check_files(path, columns, flag="--descriptions-file, --descriptions-*-col").raise_if_any()

        texts: dict[str, dict[str, str]] = {}
        for chunk in read_chunks(path, columns):
            _collect(texts, *(chunk[name].tolist() for name in columns))
        if not texts:
            raise UsageError(f"{os.fspath(path)} holds no description: columns {code_col!r}, {text_col!r} are blank.")
        return cls(texts, prob, template)

    @classmethod
    def of_frame(
        cls,
        frame: pd.DataFrame,
        code_col: str | None,
        text_col: str | None,
        lang_col: str | None = None,
        prob: float = 0.5,
        template: str = DEFAULT_TEMPLATE,
    ) -> Descriptions:
        """Take them from a DataFrame; of several descriptions of a code in a language the first counts.

        Raises
        ------
        UsageError
            A column is not named or missing, or there is no description.
        """
        if not (code_col and text_col):
            raise UsageError(
                "Name the columns of the table of descriptions with descriptions_code_col and descriptions_text_col."
            )
        columns = [name for name in (code_col, text_col, lang_col) if name]
        fault = columns_fault("The table of descriptions", list(frame.columns), columns)
        if fault:
            raise UsageError(fault)
        texts: dict[str, dict[str, str]] = {}
        _collect(texts, *([as_text(value, decimals=False) for value in cells_of(frame[name])] for name in columns))
        if not texts:
            raise UsageError(f"The table of descriptions is blank: columns {code_col!r}, {text_col!r}.")
        return cls(texts, prob, template)

    def with_codes_of_languages(self, code_of: Callable[[str], str | None]) -> Descriptions:
        """The same, each also found by the code of its language, as rows have it.

        Parameters
        ----------
        code_of
            The code for a spelling of a language; None where it is not known.
        """
        texts: dict[str, dict[str, str]] = {}
        for code, own in self.texts.items():
            texts[code] = dict(own)
            for language, text in own.items():
                known = None if language == NO_LANGUAGE else code_of(language)
                if known is not None:
                    texts[code].setdefault(known, text)
        return Descriptions(texts, self.prob, self.template)

    @property
    def multilingual(self) -> bool:
        """Whether any description says its language."""
        return any(language != NO_LANGUAGE for own in self.texts.values() for language in own)

    def __getitem__(self, code: str) -> str | dict[str, str]:
        own = self.texts[code]
        return own[NO_LANGUAGE] if list(own) == [NO_LANGUAGE] else dict(own)

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def find(self, code: str, language: str) -> str | None:
        """The description of a code: in the language, else in English, else in any; None if there is none."""
        own = self.texts.get(code)
        if not own:
            return None
        return own.get(language) or own.get(FALLBACK_LANGUAGE) or next(iter(own.values()))

    def fill_in(self, text: str, description: str) -> str:
        """Text and description as the template joins them."""
        return self.template.format(occ=text, desc=description)

    def join(self, text: str, code: str, language: str) -> str:
        """The text with the description of the code; the text alone if there is none."""
        description = self.find(code, language)
        return text if description is None else self.fill_in(text, description)


def _collect(
    texts: dict[str, dict[str, str]],
    codes: Sequence[str],
    descriptions: Sequence[str],
    languages: Sequence[str] | None = None,
) -> None:
    """Add descriptions by code and language; what is blank is passed over."""
    for code, text, language in zip(codes, descriptions, languages or [NO_LANGUAGE] * len(codes)):
        if code and text.strip():
            texts.setdefault(code, {}).setdefault(language, text)
