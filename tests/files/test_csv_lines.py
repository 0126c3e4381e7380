"""Rows of CSV files: as pandas writes them, and read back as they were."""

import io

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.files.csv_lines import csv_records, csv_text

VALUES = st.text(alphabet="ab,\"\r\n'; æ", max_size=5)


@settings(deadline=None)
@given(st.lists(st.lists(VALUES, min_size=2, max_size=2), max_size=4))
def test_read_back_as_it_was_and_as_pandas_writes_it(rows):
    text = csv_text([["c0", "c1"], *rows])
    assert [*csv_records(io.StringIO(text, newline=""))] == [["c0", "c1"], *rows]
    frame = pd.read_csv(io.StringIO(text, newline=""), dtype=object, na_filter=False, lineterminator="\n")
    assert frame.to_numpy().tolist() == rows
    if not any("\r" in value for row in rows for value in row):
        assert text == pd.DataFrame(rows, columns=["c0", "c1"]).to_csv(index=False, lineterminator="\n")


def test_a_lone_carriage_return_stands_in_quotes():
    assert csv_text([["a\rb", "c"]]) == '"a\rb",c\n'
