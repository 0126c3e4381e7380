"""How programs and people write that there is no value."""

from __future__ import annotations

from typing import Final

# Lower-cased. None of them is a code of any system, or a class index.
MISSING_SPELLINGS: Final = frozenset(
    {"?", "??", ".", "-", "--", "nan", "-nan", "none", "null", "na", "n.a.", "#na", "<na>", "n/a", "#n/a", "#n/a n/a"}
    | {"1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
)
