"""The table that a demo prints at its end, read back."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

from histocc.__main__ import main

COLUMNS = ["description", "language", "predicted", "confidence", "true", "right"]


def check_unseen(
    out: str, trained: set[str], set_aside: dict[tuple[str, str], str], *, whole_table: bool = True
) -> None:
    """Fail unless ten rows are shown, none of them trained on, with the codes that the command named there gives.

    `set_aside` has the true codes, joined by ' & ', of each description and language; `whole_table`
    says that the command codes all of them.
    """
    head, *lines = out.split("Descriptions that are not in the training rows, coded by ")[1].splitlines()[1:12]
    assert head.split() == COLUMNS
    places = [head.index(name) for name in COLUMNS]
    rows = [[line[a:b].strip() for a, b in zip(places, [*places[1:], None])] for line in lines]
    assert len(rows) == 10
    command = shlex.split(re.search("\n  (histocc predict .*--output coded.csv)\n", out)[1])[1:]
    assert main(command) == 0
    with Path("coded.csv").open(encoding="utf-8", newline="") as file:
        coded = {(row["occ1"], row["lang"]): row for row in csv.DictReader(file)}
    for description, language, predicted, confidence, true, right in rows:
        assert description.casefold() not in trained
        assert set_aside[description, language] == true
        if not whole_table and (description, language) not in coded:
            continue
        row = coded[description, language]
        codes = [row[column] for column in row if column.startswith("code_") and row[column]]
        assert predicted == (" & ".join(codes) or "-")
        assert confidence == f"{float(row['confidence']):.0%}"
        assert right == ("yes" if set(codes) == set(true.split(" & ")) else "no")
    assert f"{sum(row[-1] == 'yes' for row in rows)} of 10 have exactly the right codes." in out
