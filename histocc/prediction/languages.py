"""The languages of a table in the codes that a model knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from histocc.dataloader.encoding import UNKNOWN_LANGUAGE
from histocc.files.languages import LanguageNames, fold

_MOST_LISTED = 10


class KnownLanguages:
    """Reads spellings of languages as preparation does, and counts what was read as what.

    Parameters
    ----------
    known
        The languages that the model was trained on; None where that is not known. A model trained without any reads
        every language as unknown.
    own
        Code of each spelling by a list of one's own, see `histocc.files.languages.read_language_map`; it wins, and then
        what the model knows as it is spelt.
    """

    def __init__(self, known: Collection[str] | None = None, own: Mapping[str, str] | None = None) -> None:
        self._known = known
        self._without = known is not None and set(known) <= {UNKNOWN_LANGUAGE}
        self._own = dict(own or {})
        self._names = LanguageNames()
        self._code_of: dict[str, str] = {}
        self._rows: dict[str, int] = {}

    def code(self, spelling: str, rows: int) -> str:
        """The code for the spelling that so many more rows have; one that means no language of the model stays."""
        code = self._code_of.get(spelling)
        if code is None:
            code = self._code_of[spelling] = self._read(spelling)
        self._rows[spelling] = self._rows.get(spelling, 0) + rows
        return code

    def _read(self, spelling: str) -> str:
        if self._without:
            return UNKNOWN_LANGUAGE
        own = self._own.get(fold(spelling))
        if own is not None:
            return own
        if self._known is not None and spelling in self._known:
            return spelling
        code = self._names.code(spelling)
        if code is None or (self._known is not None and code not in self._known and code != UNKNOWN_LANGUAGE):
            return spelling
        return code

    def note(self) -> str | None:
        """What was read as what, in words; None where all languages are as they are spelt."""
        changed = [
            f"{spelling!r} as {code!r} ({self._rows[spelling]:,} row{'s' * (self._rows[spelling] != 1)})"
            for spelling, code in self._code_of.items()
            if code != spelling
        ]
        if not changed:
            return None
        if self._without:
            return "Languages not used: the model was trained without any, and reads all rows as 'unk'"
        more = f" and {len(changed) - _MOST_LISTED:,} more" if len(changed) > _MOST_LISTED else ""
        return (
            f"Languages read as the codes that the models know: {', '.join(changed[:_MOST_LISTED])}{more} "
            "(--language-map maps them otherwise)"
        )

    def strange(self) -> dict[str, int]:
        """Rows of each language that the model does not know; empty where it is not known which these are."""
        if self._known is None:
            return {}
        return {
            spelling: self._rows[spelling]
            for spelling, code in self._code_of.items()
            if code not in self._known and code != UNKNOWN_LANGUAGE
        }
