"""Random tables: every row is in the files or reported, and codes read back as they went in."""

from __future__ import annotations

import csv
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from histocc.errors import UsageError
from histocc.files import tables as reading
from histocc.formatter import construct_general_purpose_formatter
from histocc.preparation import prepare, read_key, writing
from tests.oracles.plain_preparation import plain_prepare, write_plain

spellings = st.sampled_from(["", "", " ", "   ", "nan", "NaN", "None", "null", "NA", "?", "N/A", " nan "])
codes = st.one_of(
    spellings,
    st.sampled_from(
        ["61110", "02305", "99999", "1110", "?1110", "-1", "abcde", "a-b.c", "\u00e6bcde", "6 110", "611100"]
    ),
    st.sampled_from([" 61110", "61110 ", "\u00a01110", " 7", "7", "-1 ", "007"]),
    st.sampled_from(["61110.0", "1110.0", "99999.00", "12.5"]),
    st.text(alphabet='019aZ-.,"\n\u00e6 ', max_size=6),
)
pieces = st.lists(st.sampled_from(["0", "1", "27", "-3", "1000", "x"]), min_size=1, max_size=9).map(",".join)
texts = st.one_of(
    st.sampled_from(
        ["farmer", "smith, at home", 'the "old" baker', "", " ", "nan", "NA", "two\nlines", "a\rb", "\ufeffx"]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12),
)
languages = st.sampled_from(["en", "da", "unk", "", " ", "nan", "d,a", "German", "DE", "ge", "xx", "sv"])


@st.composite
def tables(draw):
    n_codes = draw(st.integers(1, 4))
    columns = ["what", *(f"c{i}" for i in range(n_codes)), "spoken", "other"]
    code = draw(st.sampled_from([codes, st.one_of(spellings, pieces)]))
    row = st.fixed_dictionaries(
        {"what": texts, "spoken": languages, "other": texts, **{f"c{i}": code for i in range(n_codes)}}
    )
    rows = draw(st.lists(row, min_size=2, max_size=25))
    return {
        "columns": draw(st.permutations(columns)),
        "rows": rows,
        "n_codes": n_codes,
        "within": code is not codes,
        "keep": draw(st.booleans()),
        "short": draw(st.sampled_from([(), ("-1",), ("7", "-1")])),
        "split_by": draw(st.sampled_from([None, None, "description", "what", "other", "spoken"])),
        "pad": code is codes and draw(st.booleans()),
        "language_col": draw(st.sampled_from([None, "spoken"])),
        "quoting": draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])),
        "share": draw(st.sampled_from([0.1, 0.5, 0.9])),
    }


def row(what, *codes, spoken="en", other="x"):
    return {"what": what, "spoken": spoken, "other": other, **{f"c{i}": code for i, code in enumerate(codes)}}


# The last row is empty, but for a blank in a code column.
BLANK_CODE_IN_AN_EMPTY_ROW = {
    "columns": ["what", "c0", "c1", "spoken", "other"],
    "rows": [row("a", "61110", ""), row("b", "61110", ""), row("", "", " ", spoken="", other="")],
    "n_codes": 2,
    "within": False,
    "keep": False,
    "short": (),
    "pad": False,
    "split_by": None,
    "language_col": None,
    "quoting": csv.QUOTE_ALL,
    "share": 0.5,
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tables())
@example(BLANK_CODE_IN_AN_EMPTY_ROW)
def test_as_the_plain_implementation(table):
    # Few rows at a time, so that small tables have boundaries too.
    with (
        mock.patch.object(reading, "CHUNK_ROWS", 3),
        mock.patch.object(writing, "CHUNK_ROWS", 3),
        tempfile.TemporaryDirectory() as folder,
    ):
        check(table, Path(folder))


def check(table, folder):
    path = folder / "raw.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        # "\r\n" makes Python quote a lone "\r", which would otherwise end the row for every reader.
        writer = csv.DictWriter(file, table["columns"], lineterminator="\r\n", quoting=table["quoting"])
        writer.writeheader()
        writer.writerows(table["rows"])
    target_cols = [f"c{i}" for i in range(table["n_codes"])]
    formatter = construct_general_purpose_formatter(8 if table["within"] else 5, target_cols, None, table["within"])
    common = {
        "language_col": table["language_col"],
        "keep_missing_spellings": table["keep"],
        "short_codes": table["short"],
        "pad_codes": table["pad"],
        "split_by": table["split_by"],
    }
    plain = plain_prepare(path, "what", formatter, table["share"], **common)
    arguments = (path, "what", formatter, folder / "out", table["share"])

    # Without permission to drop, the very rows that do not fit are counted.
    n_bad, n_rows = len(plain.bad_rows | plain.short_rows), len(table["rows"]) - plain.empty_rows
    if n_bad:
        with pytest.raises(UsageError, match=rf"^({n_bad:,} of {n_rows:,} rows? of|No row of)"):
            prepare(*arguments, **common)
        if (folder / "out").exists():
            assert rejected(folder / "out", table, target_cols) == plain.bad_rows | plain.short_rows
            shutil.rmtree(folder / "out")

    permissive = {**common, "drop_bad_rows": True, "allow_codes_shorter_than_block_size": True}
    if not (plain.has_codes and plain.train and plain.val):
        with pytest.raises(UsageError, match=r"No row of|cannot be split|no rows"):
            prepare(*arguments, **permissive)
        assert {path.name for path in folder.glob("out/*")} <= {"rejected_rows.csv"}
        return
    key, report = prepare(*arguments, **permissive)

    # The split and every row are those of the plain implementation, and the files are what pandas would write.
    read_back = {"dtype": str, "keep_default_na": False}
    for name, rows in (("data_train.csv", plain.train), ("data_val.csv", plain.val)):
        frame = pd.read_csv(folder / "out" / name, **read_back)
        assert frame.columns.tolist() == plain.header
        assert frame.to_numpy().tolist() == rows
        if not any("\r" in text for text, *_ in rows):
            write_plain(folder / "plain.csv", plain.header, rows)
            assert (folder / "out" / name).read_bytes() == (folder / "plain.csv").read_bytes()
            assert (folder / "out" / name).read_text("utf-8") == frame.to_csv(index=False, lineterminator="\n")
    assert key == plain.key == read_key(folder / "out" / "key.csv")

    # What a split says of itself is true, and one by description has no text on both sides.
    trained = {text for text, *_ in plain.train}
    assert report.rows_val_seen == sum(text in trained for text, *_ in plain.val)
    if table["split_by"] in ("description", "what"):
        assert report.rows_val_seen == 0
    both = [*plain.train, *plain.val]
    assert report.rows_duplicate == len(both) - len(set(map(tuple, both)))
    codes_trained, codes_validated = (
        {code for _, *codes, _ in part for code in codes} for part in (plain.train, plain.val)
    )
    assert set(report.codes_only_in_val) == codes_validated - codes_trained - {""}

    # No row is lost: each is prepared, listed as rejected, or counted as empty.
    assert report.rows_train + report.rows_val + report.rows_dropped + report.rows_empty == len(table["rows"])
    listed = rejected(folder / "out", table, target_cols) if plain.bad_rows else set()
    assert listed == plain.bad_rows

    # No code is changed without a word: what was read as no code is counted, what was a float is counted. Rows that
    # hold nothing but blanks are counted as empty instead, whichever blanks stand in their code columns.
    kept = [
        row
        for number, row in enumerate(table["rows"], start=2)
        if number not in plain.bad_rows and any(value.strip() for value in row.values())
    ]
    cells = [row[column] for row in kept for column in target_cols]
    told = set(report.missing_spellings)
    told |= {c for c in cells if "." in c} if report.float_cells else set()
    told |= {c for c in cells if c != c.strip()} if report.stripped_cells else set()
    told |= {c for c in cells if c.isdigit()} if report.padded_cells else set()
    assert set(cells) - told <= set(key)


def rejected(folder, table, target_cols):
    """The numbers of the rows in the list of those that do not fit, which is as the table has them."""
    numbers = set()
    with (folder / "rejected_rows.csv").open(encoding="utf-8", newline="") as file:
        for entry in csv.DictReader(file):
            source = table["rows"][int(entry["row"]) - 2]
            assert all(entry[column] == source[column] for column in ["what", *target_cols])
            assert entry["value"] == source[entry["column"]]
            assert entry["remedy"]
            numbers.add(int(entry["row"]))
    return numbers
