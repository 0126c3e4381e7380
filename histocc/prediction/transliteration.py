"""Text in ASCII, as the published models were fed it."""

from __future__ import annotations

import unicodedata

_LETTERS = {
    "æ": "ae", "ð": "d", "đ": "d", "ø": "o", "þ": "th", "ß": "ss", "œ": "oe", "ł": "l", "ħ": "h", "ı": "i", "ĸ": "k",
    "ŀ": "l", "ŋ": "ng", "ŉ": "'n", "ŧ": "t", "ƒ": "f", "ǝ": "@", "ȝ": "y", "ƿ": "w", "ʒ": "zh",
    # Greek
    "α": "a", "β": "b", "γ": "g", "δ": "d", "ε": "e", "ζ": "z", "η": "e", "θ": "th", "ι": "i", "κ": "k", "λ": "l",
    "μ": "m", "ν": "n", "ξ": "x", "ο": "o", "π": "p", "ρ": "r", "σ": "s", "ς": "s", "τ": "t", "υ": "u", "φ": "ph",
    "χ": "kh", "ψ": "ps", "ω": "o", "ϛ": "st", "ϗ": "&",
    # Cyrillic
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ё": "io", "ж": "zh", "з": "z", "и": "i", "к": "k",
    "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f", "х": "kh",
    "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "'", "ы": "y", "ь": "'", "э": "e", "ю": "iu", "я": "ia",
    "ђ": "dj", "ѓ": "gj", "є": "ie", "ѕ": "dz", "і": "i", "ї": "yi", "ј": "j", "љ": "lj", "њ": "nj", "ћ": "tsh",
    "ќ": "kj", "џ": "dzh", "ѐ": "ie",
}  # fmt: skip
_MARKS = {
    "µ": "u", "‘": "'", "’": "'", "‛": "'", "‚": ",", "“": '"', "”": '"', "‟": '"', "„": ",,", "«": "<<", "»": ">>",
    "‹": "<", "›": ">", "´": "'", "¨": '"', "¸": ",", "¯": "-", "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "--",
    "―": "--", "•": "*", "·": "*", "†": "+", "‡": "++", "′": "'", "″": "''", "⁄": "/", "÷": "/", "×": "x", "¦": "|",
    "¬": "!", "¡": "!", "¿": "?", "°": "deg", "±": "+-", "§": "SS", "¶": "P", "©": "(c)", "®": "(r)", "¢": "C/",
    "£": "PS", "¤": "$?", "¥": "Y=", "€": "EUR", "⁊": "&", "№": "No. ", "¼": " 1/4", "½": " 1/2", "¾": " 3/4",
    "\u200b": " ",
}  # fmt: skip
_CAPITALS = {letter.upper(): text.capitalize() for letter, text in _LETTERS.items() if len(letter.upper()) == 1}
_TABLE = str.maketrans(_CAPITALS | _LETTERS | _MARKS)


def to_ascii(text: str) -> str:
    """The text without accents, other letters spelt out (`æ` is `ae`, `þ` is `th`).

    Latin, Greek and Cyrillic letters and the usual marks come out as Unidecode, which the published models were trained
    with, gives them; characters of other scripts are left out.
    """
    if text.isascii():
        return text
    # Twice: some characters have a spelling of their own, the rest is taken apart into a letter and its accents.
    taken_apart = unicodedata.normalize("NFKD", text.translate(_TABLE))
    return taken_apart.translate(_TABLE).encode("ascii", "ignore").decode("ascii")
