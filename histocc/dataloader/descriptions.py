"""Official descriptions of codes, to be joined to what the sources say."""

from __future__ import annotations

import os
from collections.abc import Mapping

from histocc.dataloader.rows import check_files
from histocc.errors import Problems, UsageError
from histocc.files.tables import read_chunks

DEFAULT_TEMPLATE = "{occ} [DESC: {desc}]"
FALLBACK_LANGUAGE = "en"


class Descriptions:
    """Descriptions by code and language.

    Parameters
    ----------
    texts
        For each code its descriptions by language (the empty string where the language is not known).
    prob
        Probability with which a training row gets the description of its first code.
    template
        How text and description are joined; `{occ}` and `{desc}` stand for them.

    Raises
    ------
    UsageError
        `prob` is no probability or the template cannot be filled in.
    """

    def __init__(
        self, texts: Mapping[str, Mapping[str, str]], prob: float = 0.5, template: str = DEFAULT_TEMPLATE
    ) -> None:
        problems = Problems()
        if not 0 <= prob <= 1:
            problems.add(f"The probability of a description is {prob}, but must lie in 0..1 (--description-prob).")
        try:
            template.format(occ="", desc="")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            problems.add(
                f"The template {template!r} cannot be filled in ({type(error).__name__}: {error}): "
                "use {occ} for the text and {desc} for the description (--description-template)."
            )
        problems.raise_if_any()
        self.texts = texts
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
            languages = chunk[lang_col].tolist() if lang_col else [""] * len(chunk)
            for code, text, language in zip(chunk[code_col].tolist(), chunk[text_col].tolist(), languages):
                if code and text.strip():
                    texts.setdefault(code, {}).setdefault(language, text)
        if not texts:
            raise UsageError(f"{os.fspath(path)} holds no description: columns {code_col!r}, {text_col!r} are blank.")
        return cls(texts, prob, template)

    def find(self, code: str, language: str) -> str | None:
        """The description of a code: in the language, else in English, else in any; None if there is none."""
        by_language = self.texts.get(code)
        if by_language is None:
            return None
        return by_language.get(language) or by_language.get(FALLBACK_LANGUAGE) or next(iter(by_language.values()))

    def join(self, text: str, code: str, language: str) -> str:
        """The text with the description of the code; the text alone if there is none."""
        description = self.find(code, language)
        return text if description is None else self.template.format(occ=text, desc=description)
