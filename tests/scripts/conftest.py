"""Small inputs for the scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROWS = [
    "en,farmer,6,,",
    "en,blacksmith,1306,,",
    "da,husmand og fisker,677,703,",
    "en,nan,1915,,",
    "fr,boulanger,1158,,",
    "se,smed,1306.0,,",
    'de,"schmied, meister",1306,,',
    "en,labourer,1915,,",
]


@pytest.fixture
def hisco_table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a table with HISCO classes: `hisco_table(name, rows)`, rows as `lang,occ1,code1,code2,code3`."""

    def write(name: str = "train.csv", rows: list[str] = ROWS, header: str = "lang,occ1,code1,code2,code3,code4,code5"):
        path = tmp_path / name
        path.write_text("\n".join([header, *(row + ",," if header.endswith("code5") else row for row in rows)]) + "\n")
        return path

    return write
