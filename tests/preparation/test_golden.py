"""The files of the original, byte for byte, and its refusals."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from histocc.errors import UsageError
from histocc.formatter import construct_general_purpose_formatter
from histocc.preparation import prepare_finetuning_data

FOLDER = Path(__file__).parents[1] / "golden" / "finetune_prepare"
SCENARIOS = json.loads((FOLDER / "scenarios.json").read_text())


def without_missing(key: bytes) -> bytes:
    """The one deliberate difference: a missing code is no class, and the numbering has no gap for it."""
    header, *rows = csv.reader(io.StringIO(key.decode()))
    rows = [[code, i] for i, code in enumerate(code for code, _ in rows if code)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue().encode()


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name, tmp_path):
    scenario = SCENARIOS[name]
    formatter = construct_general_purpose_formatter(
        scenario["block_size"], scenario["target_cols"], use_within_block_sep=scenario["use_within_block_sep"]
    )

    def run():
        return prepare_finetuning_data(
            FOLDER / name / "input.csv",
            "occ1",
            formatter,
            tmp_path / "out",
            scenario["share_val"],
            **scenario["options"],
        )

    if scenario["error"]:
        rows = re.search(r"(\d+) (bad )?cases", scenario["error"])[1]
        with pytest.raises(UsageError, match=f"^{rows} of 400 rows of input.csv do not fit"):
            run()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["rejected_rows.csv"]
        return

    key = run()
    expected = FOLDER / name / "expected"
    for file in ("data_train.csv", "data_val.csv"):
        assert (tmp_path / "out" / file).read_bytes() == (expected / file).read_bytes()
    assert (tmp_path / "out" / "key.csv").read_bytes() == without_missing((expected / "key.csv").read_bytes())
    assert list(key.values()) == list(range(len(key)))
