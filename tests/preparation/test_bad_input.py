"""Whatever is wrong with a call or a file: one clear message, and the save path stays as it was."""

from __future__ import annotations

import gzip
import os
import re
import sys

import pandas as pd
import pytest

from histocc.errors import UsageError
from histocc.formatter import construct_general_purpose_formatter
from histocc.preparation import prepare

GOOD = [["occ1", "hisco_1"], *(["farmer", "61110"] for _ in range(20))]


@pytest.fixture
def refuse(tmp_path, formatter):
    """Prepare, expect a refusal whose message matches, and a folder with nothing new but the list of bad rows."""

    def run(dataset, match, *, save_path=None, input_col="occ1", share_val=0.1, formatter=formatter, **options):
        listed = tmp_path / "out" / "rejected_rows.csv"
        listed.unlink(missing_ok=True)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path != listed.parent}
        with pytest.raises(UsageError, match=match) as caught:
            prepare(dataset, input_col, formatter, save_path or tmp_path / "out", share_val, **options)
        after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path not in (listed, listed.parent)}
        assert after == before
        assert listed.exists() == (f"All of them are listed in {listed}" in str(caught.value))
        return str(caught.value)

    return run


def test_missing_file(refuse, tmp_path, write_csv):
    write_csv(GOOD, "occupations.csv")
    refuse(tmp_path / "ocupations.csv", r"There is no file .*ocupations\.csv \(did you mean 'occupations\.csv'\?\)")
    refuse(tmp_path / "nowhere" / "x.csv", r"There is no file .*x\.csv")


def test_no_dataset(refuse):
    refuse(None, r"lacks data_train\.csv, data_val\.csv, key\.csv: name the table to prepare with --dataset")


def test_a_folder_for_a_dataset(refuse, tmp_path):
    refuse(tmp_path, "is a folder: name the table itself")


def test_a_spreadsheet(refuse, tmp_path):
    (tmp_path / "table.xlsx").write_bytes(b"PK")
    refuse(tmp_path / "table.xlsx", r"table\.xlsx is a \.xlsx file: save it as CSV")


def test_column_names_with_commas_between_them_are_to_be_given_apart(refuse, write_csv):
    path = write_csv([["occ1", "Code A", "Code B"], ["farmer", "61110", ""]])

    def named(column):
        return construct_general_purpose_formatter(5, [column])

    match = r"no column 'Code A, ?Code B' \(separate names by blanks: \"Code A\" \"Code B\"\); its columns are"
    refuse(path, match, formatter=named("Code A,Code B"))
    refuse(path, match, formatter=named("Code A, Code B"))
    assert "blanks" not in refuse(path, "no column 'Code A,Code C'", formatter=named("Code A,Code C"))


def test_missing_columns_are_listed_with_close_names(refuse, write_csv):
    path = write_csv([["Occ1", "hisco1", "year"], ["farmer", "61110", "1880"]])
    refuse(
        path,
        r"table\.csv has no columns 'occ1' \(did you mean 'Occ1'\?\), 'hisco_1' \(did you mean 'hisco1'\?\); "
        r"its columns are: 'Occ1', 'hisco1', 'year'\. Rename columns in the table, or name those that it has",
    )


def test_missing_columns_of_all_tables_are_told_before_any_is_read(refuse, write_csv):
    table = write_csv([["occ1", "hisco1"], ["farmer", "too long to be a code"]])
    other = write_csv([["occ", "hisco_1"], ["farmer", "61110"]], "other.csv")
    codes = write_csv([["code"], ["61110"]], "codes.csv")
    message = refuse(table, "3 problems", val_data=other, all_codes_file=codes, all_codes_col="codes")
    assert "table.csv has no column 'hisco_1' (did you mean 'hisco1'?)" in message
    assert "other.csv has no column 'occ1' (did you mean 'occ'?)" in message
    assert "codes.csv has no column 'codes' (did you mean 'code'?)" in message


def test_missing_column_of_a_frame(refuse):
    refuse(pd.DataFrame({"occ1": ["x"]}), r"the table has no column 'hisco_1'; its columns are: 'occ1'")


def test_duplicate_columns(refuse, write_csv):
    path = write_csv([["occ1", "hisco_1", "hisco_1"], ["farmer", "61110", "61110"]])
    refuse(path, r"table\.csv has 2 columns called 'hisco_1': rename all but one")


def test_empty_files(refuse, tmp_path, write_csv):
    (tmp_path / "empty.csv").write_bytes(b"")
    refuse(tmp_path / "empty.csv", r"empty\.csv is empty: it needs a header")
    refuse(write_csv(GOOD[:1]), r"table\.csv has a header but no rows")
    refuse(write_csv([GOOD[0], ["", ""], [" ", ""]]), r"table\.csv has a header but no rows")
    refuse(pd.DataFrame({"occ1": [], "hisco_1": []}), "the table has a header but no rows")


def test_one_row(refuse, write_csv):
    refuse(write_csv(GOOD[:2]), r"1 row cannot be split: --share-val 0\.1 gives 0 to validation and 1 to training")
    refuse(write_csv(GOOD[:10]), r"9 rows cannot be split: --share-val 0\.1")


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_share_of_validation(refuse, write_csv, share):
    refuse(write_csv(GOOD), r"--share-val is .*; it must lie in 0..1 without the ends", share_val=share)


def test_all_rows_bad(refuse, write_csv):
    path = write_csv([GOOD[0], ["farmer", "6111011"], ["", "6\u00e61"]])
    refuse(path, r"^2 of 2 rows of table\.csv do not fit")
    refuse(
        path,
        r"No row of table\.csv would be left, all 2 do not fit: unknown character 1, too long 1, missing text 1",
        drop_bad_rows=True,
    )


def test_no_codes_at_all(refuse, write_csv):
    refuse(write_csv([GOOD[0], ["farmer", "NA"], ["smith", ""]]), r"No row of table\.csv has a code in 'hisco_1'")


def test_save_path_is_a_file(refuse, write_csv, tmp_path):
    (tmp_path / "taken").write_text("x")
    refuse(write_csv(GOOD), r"--save-dir .*taken: this is a file; give a folder", save_path=tmp_path / "taken")
    refuse(
        write_csv(GOOD),
        r"--save-dir .*below: .*taken is a file; give a folder",
        save_path=tmp_path / "taken" / "below",
    )


def test_read_only_folder(refuse, write_csv, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir()
    # Tests may run as root, for whom nothing is read-only.
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("locked"))
    refuse(write_csv(GOOD), r"no permission to write in .*locked", save_path=tmp_path / "locked")
    refuse(write_csv(GOOD), r"no permission to write in .*locked", save_path=tmp_path / "locked" / "a" / "b")


def test_a_write_that_fails_leaves_nothing(write_csv, tmp_path, formatter, monkeypatch):
    path = write_csv(GOOD)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "key.csv").write_text("from before")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("histocc.preparation.pipeline.write_key", full)
    with pytest.raises(UsageError, match=r"Cannot write to .*out: No space left on device"):
        prepare(path, "occ1", formatter, tmp_path / "out", 0.1)
    with pytest.raises(UsageError, match="Cannot write to"):
        prepare(path, "occ1", formatter, tmp_path / "a" / "b", 0.1)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["key.csv"]
    assert (tmp_path / "out" / "key.csv").read_text() == "from before"
    assert not (tmp_path / "a").exists()


def test_language_given_twice(refuse, write_csv):
    refuse(
        write_csv([["occ1", "hisco_1", "l"], ["farmer", "61110", "en"]]),
        r"Both --language da and --language-col l are given",
        language="da",
        language_col="l",
    )


def test_contradicting_columns(refuse, write_csv):
    path = write_csv(GOOD)
    make = construct_general_purpose_formatter
    refuse(path, r"Column 'hisco_1' cannot be both the text .* and a code column", input_col="hisco_1")
    refuse(path, r"The code column 'hisco_1' is named 2 times", formatter=make(5, ["hisco_1", "hisco_1"]))
    refuse(path, r"A code column cannot be called 'lang'", formatter=make(5, ["lang"]))
    refuse(path, r"A code column cannot be called 'occ1'", formatter=make(5, ["occ1"]), input_col="text")
    refuse(path, r"Column 'occ1' cannot be both the text .* and the language", language_col="occ1")
    refuse(path, r"Column 'hisco_1' cannot be both a code column .* and the language", language_col="hisco_1")


def test_all_problems_with_the_arguments_at_once(refuse, tmp_path):
    message = refuse(tmp_path / "none.csv", "4 problems", share_val=2, language="da", language_col="occ1")
    assert "none.csv" in message
    assert "--share-val" in message
    assert "--language-col" in message


def test_semicolons_and_tabs(refuse, tmp_path):
    (tmp_path / "a.csv").write_text("occ1;hisco_1\nfarmer;61110\n")
    refuse(tmp_path / "a.csv", r"separated by semicolons \(its first row is 'occ1;hisco_1'\): save it with commas")
    (tmp_path / "a.tsv").write_text("occ1\thisco_1\nfarmer\t61110\n")
    refuse(tmp_path / "a.tsv", "separated by tabs")


def test_semicolons_in_another_encoding_have_a_remedy_that_works(refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "occ1;hisco_1\n" + "farmer;61110\n" * 5000 + "gårdejer – enke;61115\n"
    for header in ("", "æra;"):
        (tmp_path / "both.csv").write_bytes((header + rows).encode("cp1252"))
        message = refuse(tmp_path / "both.csv", r"separated by semicolons .*, and it is not in UTF-8: row \d+ holds")
        (remedy,) = re.findall(r"in Python: (pandas\..*index=False\))", message)
        exec(remedy, {"pandas": pd})
        written = (tmp_path / "commas.csv").read_text("utf-8")
        assert written.replace(",\n", "\n") == (header + rows).replace(";", ",")
    (tmp_path / "both.csv").write_bytes(rows.encode("cp1252") + b"\x81;61110\n")
    assert "encoding='latin-1'" in refuse(tmp_path / "both.csv", "separated by semicolons")


def test_latin_1(refuse, tmp_path):
    rows = ["occ1,hisco_1", "farmer,61110", '"two\nlines",61110', "b\u00f8dker,81000"]
    (tmp_path / "a.csv").write_bytes("\n".join(rows).encode("latin-1"))
    refuse(tmp_path / "a.csv", r"a\.csv is not in UTF-8: row 4 holds 'b\u00f8dker' .* Save it as CSV in UTF-8")
    (tmp_path / "b.csv").write_bytes("yrke \u00e5,hisco_1\nfarmer,61110\n".encode("latin-1"))
    refuse(tmp_path / "b.csv", r"b\.csv is not in UTF-8: row 1 holds 'yrke \u00e5'")
    (tmp_path / "c.csv").write_text("occ1,hisco_1\nfarmer,61110\n", "utf-16")
    refuse(tmp_path / "c.csv", r"c\.csv is not in UTF-8")


@pytest.mark.parametrize("at", [0, 1, 49_999, 50_000, 50_001])
def test_more_values_than_columns(refuse, tmp_path, at):
    lines = ["farmer,61110"] * 50_003
    lines[at] = "carpenter, and joiner,95410"
    (tmp_path / "a.csv").write_text("\n".join(["occ1,hisco_1", *lines]))
    refuse(
        tmp_path / "a.csv",
        rf"a\.csv has rows with more values than its header, which names 2 columns: 1 of them, "
        rf"first row {at + 2} with 3 values \('carpenter, and joiner,95410'\)",
    )


def test_commas_at_the_end_of_rows(refuse, tmp_path, formatter):
    (tmp_path / "a.csv").write_text("occ1,hisco_1\n" + "farmer,61110,\n" * 9)
    _, report = prepare(tmp_path / "a.csv", "occ1", formatter, tmp_path / "out", 0.5)
    assert report.rows_read == 9
    (tmp_path / "b.csv").write_text("occ1,hisco_1\n" + "farmer,61110\nfarmer,61110,,\n" * 9)
    _, report = prepare(tmp_path / "b.csv", "occ1", formatter, tmp_path / "b", 0.5)
    assert report.rows_read == 18


def test_a_quotation_mark_that_is_never_closed(refuse, tmp_path):
    (tmp_path / "a.csv").write_text('occ1,hisco_1\nfarmer,61110\n"farmer,61110\nfarmer,61110\n')
    refuse(tmp_path / "a.csv", r"a\.csv ends inside a quoted text: .* opened in row 3")


def test_damaged_files(refuse, tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    refuse(tmp_path / "a.parquet", r"a\.parquet cannot be read as Parquet")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"occ1,hisco_1\nfarmer,61110\n")[:-9])
    refuse(tmp_path / "a.csv.gz", r"a\.csv\.gz")


def test_text_that_is_no_unicode(refuse):
    frame = pd.DataFrame({"occ1": pd.Series(["farmer", "f\udce6rmer"] * 10, dtype=object), "hisco_1": "61110"})
    refuse(frame, "The table holds a text that UTF-8 cannot represent")


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux alone")
def test_a_file_whose_name_is_no_text(write_csv, tmp_path, formatter):
    path = write_csv(GOOD, os.fsdecode(b"k\xf8benhavn.csv"))
    prepare(path, "occ1", formatter, tmp_path / "out", 0.1)
    _, report = prepare(path, "occ1", formatter, tmp_path / "out", 0.1)
    assert report.reused
    assert len(report.notes) == 1


def test_all_codes_file(refuse, write_csv, tmp_path):
    path = write_csv(GOOD)
    refuse(path, r"There is no file .*codes\.csv", all_codes_file=tmp_path / "codes.csv")
    refuse(path, r"Cannot read --all-codes-file", all_codes_file=tmp_path / "codes.txt")
    codes = write_csv([["code", "label"], ["", "x"]], "codes.csv")
    refuse(path, r"--all-codes-file .* has no codes in column 'code'", all_codes_file=codes)
    refuse(path, r"codes\.csv has no column 'labels'", all_codes_file=codes, all_codes_col="labels")


def test_bytes_in_a_frame(refuse):
    frame = pd.DataFrame(GOOD[1:], columns=GOOD[0], dtype=object)
    frame.loc[3, "occ1"] = "bødker".encode("latin-1")
    refuse(frame, r"the table, column 'occ1', row 5: the bytes b'b\\xf8dker' are no text in UTF-8; save the column as")
