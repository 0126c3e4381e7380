"""How programs and people write that there is no value."""

from __future__ import annotations

from typing import Final

# Lower-cased; blanks of any length count as well. Preparation asks whether they are codes of the user's system
# (`--keep-missing-spellings`) and writes empty cells, so that of the codes that training reads only blanks are missing.
# A cell of class indices may hold any of them, since none is an index.
MISSING_SPELLINGS: Final = frozenset(
    {"?", "??", ".", "-", "--", "nan", "-nan", "none", "null", "na", "n.a.", "#na", "<na>", "n/a", "#n/a", "#n/a n/a"}
    | {"1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}
)
