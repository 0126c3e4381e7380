"""From which probability on a class of the flat head counts, by language."""

from __future__ import annotations

from typing import Final

# Those with which the published HISCO model scored best, by its own names of the languages.
THRESHOLD_LOOKUP: Final[dict[str, float]] = {
    "unk": 0.31,
    "ca": 0.30,
    "da": 0.24,
    "ge": 0.21,
    "en": 0.26,
    "es": 0.30,
    "fr": 0.21,
    "gr": 0.19,
    "is": 0.17,
    "it": 0.20,
    "nl": 0.22,
    "no": 0.34,
    "pt": 0.27,
    "se": 0.26,
}
OTHER_LANGUAGES: Final = 0.31


def default_threshold(language: str) -> float:
    """The threshold of a language."""
    return THRESHOLD_LOOKUP.get(language, OTHER_LANGUAGES)
