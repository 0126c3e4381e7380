"""Which rows are refused and why, what is said about them, and what is read as no code."""

from __future__ import annotations

import json
import os
import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from histocc.errors import UsageError
from histocc.formatter import construct_finetune_formatter, construct_general_purpose_formatter
from histocc.preparation import is_prepared, prepare, prepare_finetuning_data, prepared_notes, read_key
from histocc.preparation.diagnosis import Finding
from histocc.preparation.rejected import write_rejected
from histocc.preparation.table import read_table

HEADER = ["occ1", "c1", "c2", "c3"]
GOOD = [["farmer", "61110", "", ""]] * 9


def test_every_reason_with_row_column_value_and_flag(write_csv, tmp_path, formatter3):
    path = write_csv([
        HEADER,
        *GOOD,
        ["a", "61\u00e610", "", ""],  # row 11
        ["b", "61110", "611100", ""],
        ["c", "61110", "1110", ""],
        ["d", "61110", "", "62120"],
        ["  ", "61110", "", ""],
        ["", "6 110", "1", ""],
    ])  # fmt: skip
    with pytest.raises(UsageError, match=r"^6 of 15 rows of table\.csv do not fit \(the header is row 1\)") as caught:
        prepare(path, "occ1", formatter3, tmp_path / "out", 0.1)
    message = str(caught.value)
    for expected in (
        "unknown character: 2 rows\n    row 11, column 'c1': '61\u00e610' (the character '\u00e6')",
        "row 16, column 'c1': '6 110' (the character ' '; two codes need two columns)",
        "too long: 1 row\n    row 12, column 'c2': '611100' (6 characters)",
        "a gap before a later code: 1 row\n    row 14, column 'c3': '62120' (column 'c2' before it has no code)",
        "missing text: 2 rows\n    row 15, column 'occ1': '  '",
        "too short: 2 rows\n    row 13, column 'c2': '1110' (4 characters)",
        "--drop-bad-labels",
        "--allow-codes-shorter-than-block-size",
    ):
        assert expected in message


def test_ten_examples(write_csv, tmp_path, formatter):
    path = write_csv([["occ1", "hisco_1"], *([f"x{i}", "too long"] for i in range(25))])
    with pytest.raises(UsageError, match=r"and 15 more") as caught:
        prepare(path, "occ1", formatter, tmp_path / "out", 0.1)
    assert len(re.findall(r"row \d+, column", str(caught.value))) == 10


def test_dropping_does_not_cover_short_codes(write_csv, tmp_path, formatter3):
    # Lost leading zeros concern the whole column: leaving such rows out would hide the mistake.
    path = write_csv([HEADER, *GOOD, ["a", "611101", "", ""], ["b", "1110", "", ""], ["", "1110", "", ""]])
    with pytest.raises(UsageError, match=r"^1 of 12 rows .*\n  too short: 1 row\n    row 12") as caught:
        prepare(path, "occ1", formatter3, tmp_path / "out", 0.1, drop_bad_rows=True)
    assert "--drop-bad-labels" not in str(caught.value)


def test_dropped_rows_are_listed(write_csv, read_csv, tmp_path, formatter3):
    path = write_csv(
        [
            HEADER,
            *GOOD,
            ["a, b", "61\u00e610", "", "62120"],
            ["", "61110", "", ""],
            ["c", "1110", "", ""],
            ["", "1110", "", ""],
        ]
    )
    key, report = prepare(
        path, "occ1", formatter3, tmp_path / "out", 0.1, drop_bad_rows=True, allow_codes_shorter_than_block_size=True
    )
    correct = "correct the code; several codes belong in several columns"
    move = "move the code to the left, into the first column that has none"
    assert read_csv(tmp_path / "out" / "rejected_rows.csv") == [
        ["row", "column", "value", "reason", "remedy", "occ1", "c1", "c2", "c3"],
        ["11", "c1", "61\u00e610", "unknown character", correct, "a, b", "61\u00e610", "", "62120"],
        ["11", "c3", "62120", "a gap before a later code", move, "a, b", "61\u00e610", "", "62120"],
        ["12", "occ1", "", "missing text", "fill in the description", "", "61110", "", ""],
        ["14", "occ1", "", "missing text", "fill in the description", "", "1110", "", ""],
    ]
    assert key == {"61110": 0, "1110": 1}
    assert (report.rows_read, report.rows_dropped, report.rows_short) == (13, 3, 1)
    assert report.dropped == {"unknown character": 1, "a gap before a later code": 1, "missing text": 2}
    assert "3 rows left out, listed in rejected_rows.csv" in report.summary()
    assert "1 row with a code shorter than the block, accepted as asked: '1110' 1 times" in report.summary()


def test_remedies_know_words_and_joined_codes(read_csv, write_csv, tmp_path):
    word, two = "a word where a code should be: correct it or leave the cell empty", "two codes need two columns"
    longer = "correct the code, or set --block-size to the length of the longest code"
    cells = {
        "unknown": word,
        "not known": word,
        "ukendt år": word,
        "61110/62120": two,
        "61110; 62120": two,
        "61110 & 62120": two,
        "61110+62120": two,
        "61110,62120": two,
        "61110.0 62120": two,
        "61110/62120/61110": "several codes need several columns",
        "61110/99999": longer,
        "611100": longer,
        "61110æ": "correct the code; several codes belong in several columns",
    }
    formatter = construct_general_purpose_formatter(5, ["c1", "c2"])
    # The second column holds words, of which none is taken for a mistake.
    rows = [["a", code, "smith"] for code in ("61110", "62120") * 9]
    table = write_csv([["occ1", "c1", "c2"], *rows, *(["b", cell, ""] for cell in cells), ["c", "61110", "unknown"]])
    prepare(table, "occ1", formatter, tmp_path / "out", 0.1, drop_bad_rows=True)
    _, *listed = read_csv(tmp_path / "out" / "rejected_rows.csv")
    assert [(line[2], line[4]) for line in listed] == [*cells.items(), ("unknown", longer)]


def test_codes_as_spreadsheets_leave_them_alone(write_csv, tmp_path, formatter):
    rows = [["occ1", "hisco_1"], ["a", '="01110"'], ["b", "01110"], ["c", '=""'], ["d", "61110"]]
    key, report = prepare(write_csv(rows), "occ1", formatter, tmp_path / "out", 0.25)
    assert key == {"01110": 0, "?": 1, "61110": 2}
    assert report.missing_spellings == {"": 1}


def test_a_list_of_many_rejected_rows_takes_little_memory(read_csv, tmp_path, monkeypatch):
    monkeypatch.setattr("histocc.preparation.rejected.CHUNK_ROWS", 500)
    frame = pd.DataFrame({"occ1": [f"text {i}" for i in range(20_000)], "c1": "1110"})
    table = read_table(frame, "occ1", ["c1"])
    rows = np.arange(20_000)[::-1]
    findings = [Finding("too short", rows, np.zeros_like(rows)), Finding("missing text", rows[:1], np.array([-1]))]
    tracemalloc.start()
    try:
        write_rejected(tmp_path / "list.csv", table, findings, "occ1", ["c1"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    header, *listed = read_csv(tmp_path / "list.csv")
    assert header == ["row", "column", "value", "reason", "remedy", "occ1", "c1"]
    assert [line[:2] for line in listed[-2:]] == [["20001", "occ1"], ["20001", "c1"]]
    assert [int(line[0]) for line in listed] == [*range(2, 20_002), 20_001]
    # Half a kilobyte a row, otherwise.
    assert peak < 100 * len(rows)


def test_a_list_of_rejected_rows_from_before_goes(write_csv, tmp_path, formatter):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rejected_rows.csv").write_text("old")
    prepare(write_csv([["occ1", "hisco_1"], *[["farmer", "61110"]] * 9]), "occ1", formatter, tmp_path / "out", 0.5)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "codes.csv",
        "data_train.csv",
        "data_val.csv",
        "key.csv",
        "preparation.json",
    ]


def test_row_numbers_count_blank_lines_and_multi_line_texts_as_a_spreadsheet_does(tmp_path, formatter):
    (tmp_path / "a.csv").write_text(
        'occ1,hisco_1\nfarmer,61110\n\n"two\nlines",61110\n   \n,\nfarmer,long code\nfarmer,61110\n'
    )
    with pytest.raises(UsageError, match=r"^1 of 4 rows .*\n.*\n    row 7, column 'hisco_1': 'long code'"):
        prepare(tmp_path / "a.csv", "occ1", formatter, tmp_path / "out", 0.5)
    _, report = prepare(tmp_path / "a.csv", "occ1", formatter, tmp_path / "out", 0.5, drop_bad_rows=True)
    assert report.rows_empty == 3
    assert "3 empty rows passed over" in report.summary()
    assert (
        "Warning: 1 row with a text of several lines, such as row 4, which spans 2 lines: a quotation mark"
        in report.summary()
    )


def test_commas_without_the_separator_flag_name_it(write_csv, tmp_path, formatter):
    path = write_csv([["occ1", "hisco_1"], ["farmer", "1,13,0,0,0,0,0,0"]])
    with pytest.raises(
        UsageError, match=r"the character ','; --use-within-block-sep splits codes at commas into parts"
    ):
        prepare(path, "occ1", formatter, tmp_path / "out", 0.5)


def test_two_codes_in_a_cell(write_csv, tmp_path):
    path = write_csv([["occ1", "c1"], ["farmer", "61110;62120"]])
    formatter = construct_general_purpose_formatter(5, ["c1"], chars=[*"0123456789;"])
    with pytest.raises(UsageError, match=r"\(11 characters; two codes need two columns\)"):
        prepare(path, "occ1", formatter, tmp_path / "out", 0.5)


def test_a_first_code_that_the_alphabet_lacks(write_csv, tmp_path):
    path = write_csv([["occ1", "c1"], ["farmer", ""], ["farmer", "61110"]])
    with pytest.raises(UsageError, match=r"row 2, column 'c1': '' \(the character '\?', read as '\?'\)"):
        prepare(path, "occ1", construct_finetune_formatter(5, ["c1"]), tmp_path / "out", 0.5)


SPELLINGS = [
    "nan",
    "NaN",
    ".",
    "-",
    "--",
    "n.a.",
    "??",
    "None",
    "null",
    "NA",
    "",
    " ",
    "    ",
    "?",
    "N/A",
    "<NA>",
    " NA ",
]


def test_spellings_of_nothing(write_csv, read_csv, tmp_path):
    formatter = construct_general_purpose_formatter(2, ["c1", "c2"])
    path = write_csv([["occ1", "c1", "c2"], *(["x", s, "ab"] for s in SPELLINGS), *(["y", "ab", s] for s in SPELLINGS)])
    key, report = prepare(path, "occ1", formatter, tmp_path / "out", 0.5)
    assert set(key) == {"?", "ab"}
    assert report.missing_spellings == dict.fromkeys(SPELLINGS, 2)
    assert report.rows_without_first_code == len(SPELLINGS)
    rows = read_csv(tmp_path / "out" / "data_train.csv")[1:] + read_csv(tmp_path / "out" / "data_val.csv")[1:]
    assert {tuple(row[1:3]) for row in rows} == {("?", "ab"), ("ab", "")}
    assert "'nan' 2 times" in report.summary()
    assert "--keep-missing-spellings makes codes of them" in report.summary()


def test_kept_spellings_are_codes(write_csv, tmp_path):
    formatter = construct_general_purpose_formatter(2, ["c1"])
    path = write_csv(
        [["occ1", "c1"], *([text, code] for text, code in zip("abcdef", ["NA", "NA", "na", "", " ", "ab"]))]
    )
    key, report = prepare(path, "occ1", formatter, tmp_path / "out", 0.5, keep_missing_spellings=True)
    assert key == {"NA": 0, "na": 1, "?": 2, "ab": 3}
    assert report.missing_spellings == {"": 1, " ": 1}


def test_texts_and_languages_are_words(write_csv, read_csv, tmp_path, formatter):
    rows = [["nan", "61110", "NA"], ["NA", "61110", "null"], ["None", "61110", "xx"], ["null", "61110", "en"]]
    path = write_csv([["occ1", "hisco_1", "l"], *rows])
    _, report = prepare(path, "occ1", formatter, tmp_path / "out", 0.5, language_col="l")
    out = read_csv(tmp_path / "out" / "data_train.csv")[1:] + read_csv(tmp_path / "out" / "data_val.csv")[1:]
    assert sorted(out) == sorted(rows)
    expected = "published models do not know, kept as they are: 'NA' (1 row), 'null' (1 row), 'xx' (1 row)"
    assert expected in report.summary()


class TestLanguages:
    @pytest.fixture
    def run(self, write_csv, read_csv, tmp_path, formatter):
        def run(languages, **options):
            path = write_csv([["occ1", "hisco_1", "l"], *(["x", "61110", language] for language in languages)])
            options.setdefault("language_col", "l")
            _, report = prepare(path, "occ1", formatter, tmp_path / "out", 0.5, overwrite=True, **options)
            parts = [read_csv(tmp_path / "out" / name)[1:] for name in ("data_train.csv", "data_val.csv")]
            return sorted(row[2] for part in parts for row in part), report

        return run

    def test_missing_ones_are_unknown(self, run):
        languages, report = run(["", "  ", "en", "unk"])
        assert languages == ["en", "unk", "unk", "unk"]
        assert report.rows_without_language == 2
        assert "2 rows without a language: 'unk'" in report.summary()

    @pytest.mark.parametrize(
        "code", ["ca", "da", "en", "es", "fr", "ge", "gr", "is", "it", "nl", "no", "pt", "se", "unk"]
    )
    def test_the_codes_of_the_models_stay(self, run, code):
        languages, report = run([code, code])
        assert languages == [code, code]
        assert report.languages_read == {}
        assert "anguages" not in report.summary()
        assert "without a language" not in report.summary()

    @pytest.mark.parametrize(
        ("code", "spellings"),
        [
            ("ge", ["German", "DE", "de", "deu", "ger", "GE", " german "]),
            ("se", ["sv", "swe", "Swedish", "SE"]),
            ("gr", ["el", "ell", "Greek"]),
            ("no", ["nb", "nn", "nor", "Norwegian"]),
            ("nl", ["nld", "dut", "Dutch"]),
            ("unk", ["und", "Unknown"]),
        ],
    )
    def test_spellings_of_one_language(self, run, code, spellings):
        languages, report = run(spellings)
        assert languages == [code] * len(spellings)
        assert report.languages_read == dict.fromkeys(spellings, code)
        assert f"the codes that the models know: {spellings[0]!r} as {code!r} (1 row), " in report.summary()

    def test_one_language_for_all_rows(self, run):
        assert run(["", ""], language_col=None, language="Danish")[0] == ["da", "da"]

    def test_a_list_of_ones_own_wins(self, run, tmp_path):
        names = tmp_path / "names.csv"
        names.write_text("spelling,code\nDeutsch,ge\nde,de\nplatt,nds\n", encoding="utf-8-sig")
        languages, report = run(["DEUTSCH", "de", "Platt", "German"], language_map=names)
        assert languages == ["de", "ge", "ge", "nds"]
        assert "do not know" not in report.summary()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("code\nge\n", r"names\.csv has the columns 'code', and should have two"),
            ("a,b,c\nx,ge,\n", r"names\.csv has the columns 'a', 'b', 'c', and should have two"),
            ("a,b\nDeutsch,\n", r"names\.csv, row 2: 'Deutsch' has no code; write unk"),
            ("a,b\nx,ge\nX,da\n", r"names\.csv, row 3: 'X' means 'da' here and 'ge' further up"),
        ],
    )
    def test_a_list_that_cannot_be_used(self, run, tmp_path, text, message):
        (tmp_path / "names.csv").write_text(text)
        with pytest.raises(UsageError, match=message):
            run(["en", "en"], language_map=tmp_path / "names.csv")


class TestCodesAsPeopleHaveThem:
    @pytest.fixture
    def run(self, write_csv, tmp_path):
        def run(rows, block_size=5, **options):
            columns = [f"c{i}" for i in range(1, len(rows[0]))]
            formatter = construct_general_purpose_formatter(block_size, columns)
            return prepare(write_csv([["occ1", *columns], *rows]), "occ1", formatter, tmp_path / "out", 0.5, **options)

        return run

    def test_blanks_around_codes_go_and_are_counted(self, run):
        key, report = run([["a", " 61110"], ["b", "61110\u00a0"], ["c", "61110"], ["d", " 61120.0 "]])
        assert key == {"61110": 0, "61120": 1}
        assert (report.stripped_cells, report.float_cells) == (3, 1)
        assert "Blanks around codes taken away in 3 cells, such as ' 61110' to '61110'" in report.summary()
        assert "Column 'c1' holds decimal numbers: 61120.0 is taken as the code 61120 (1 cell)" in report.summary()

    def test_codes_that_are_short_on_purpose(self, run):
        rows = [["a", "-1", "61110"], ["b", "-1.0", ""], ["c", "61110", "-3"], ["d", "61110", ""]]
        with pytest.raises(UsageError, match=r"3 of 4 rows .*(?s:.*)--short-codes -1 -2"):
            run(rows)
        with pytest.raises(UsageError, match=r"1 of 4 rows .*\n  too short: 1 row\n    row 4, column 'c2': '-3'"):
            run(rows, short_codes=["-1", "-2"])
        key, report = run(rows, short_codes=["-1", "-2", "-3"])
        assert key == {"-1": 0, "61110": 1, "-3": 2}
        assert "Warning: --short-codes names '-2', which no row has" in report.summary()

    def test_a_short_code_that_looks_like_a_missing_one(self, run):
        assert run([["a", "NA"], ["b", "61110"]], short_codes=["NA"])[0] == {"NA": 0, "61110": 1}

    def test_short_codes_that_are_not_short(self, run):
        message = r"2 problems:(?s:.*)names '61110', .* \(it fills the block\)(?s:.*)names 'æ', .*unknown character"
        with pytest.raises(UsageError, match=message):
            run([["a", "61110"], ["b", "61110"]], short_codes=["61110", "æ"])

    def test_lost_zeros_are_filled_up(self, run):
        rows = [["a", "2110"], ["b", "02110"], ["c", "110.0"], ["d", "7"], ["e", "-1"], ["f", "-1"]]
        key, report = run(rows, pad_codes=True, short_codes=["7", "-1"])
        assert key == {"02110": 0, "00110": 1, "7": 2, "-1": 3}
        assert report.padded_cells == 2
        assert "Codes filled up with leading zeros in 2 cells, such as '2110' to '02110'" in report.summary()

    def test_lists_are_not_filled_up(self, write_csv, tmp_path):
        formatter = construct_general_purpose_formatter(3, ["c1"], use_within_block_sep=True)
        path = write_csv([["occ1", "c1"], ["a", "1,2,3"], ["b", "1,2,3"]])
        with pytest.raises(UsageError, match="--pad-codes is for codes of single characters"):
            prepare(path, "occ1", formatter, tmp_path / "out", 0.5, pad_codes=True)

    def test_codes_that_are_perhaps_one(self, run):
        rows = [["a", "02110"], ["b", "2110"], ["c", "ab1"], ["d", "AB1"], ["e", "10.0"], ["f", "10"], ["g", "x.y"]]
        with pytest.raises(UsageError, match="Warning: 3 groups of codes that differ only by leading zeros, case or"):
            run(rows)
        key, report = run(rows, allow_codes_shorter_than_block_size=True)
        assert len(key) == 7
        expected = "'02110' (1 times), '2110' (1 times); 'ab1' (1 times), 'AB1' (1 times); '10.0' (1 times), '10'"
        assert expected in report.summary()
        assert "--pad-codes restores zeros" in report.summary()
        assert "differ only" not in run(rows[:1] * 2, overwrite=True)[1].summary()

    def test_a_first_code_missing_beside_a_later_one(self, run):
        rows = [["a", "61110", ""], ["b", "NA", "61120"], ["c", "", ""], ["d", "", "61110"]]
        key, report = run(rows)
        assert key == {"61110": 0, "?": 1, "61120": 2}
        assert (report.rows_without_first_code, report.rows_first_gap) == (3, 2)
        assert (
            "Warning: 2 rows with a code in a later column and none in 'c1', such as row 3 with '61120' in 'c2'"
            in report.summary()
        )

    def test_the_form_that_spreadsheets_leave_alone(self, run, tmp_path):
        rows = [["a", '="06510"', '=""'], ["b", ' ="06510" ', '="NA"'], ["c", "06510", '="61110"']]
        (tmp_path / "codes.csv").write_text('code\n"=""06520"""\n')
        key, report = run(rows, all_codes_file=tmp_path / "codes.csv")
        assert key == {"06510": 0, "61110": 1, "06520": 2}
        assert report.unmarked_cells == 3
        assert "keep spreadsheets off them in 3 cells, such as '=\"06510\"' to '06510'" in report.summary()

    @pytest.mark.parametrize("nothing", ["", "NA", "nan", "?", "-", " "])
    def test_many_rows_without_a_first_code_are_warned_of(self, run, nothing):
        rows = [[f"x{i}", "61110", ""] for i in range(9)]
        summary = run([*rows, ["a", nothing, ""]])[1].summary()
        assert "- 1 row without a first code: it becomes '?'\n" in summary
        assert "--drop-uncoded" not in summary
        summary = run([*rows, ["a", nothing, ""], ["b", nothing, ""]], overwrite=True)[1].summary()
        assert (
            "- Warning: 2 of 11 rows without a first code: it becomes '?', and the model learns to answer '?' to "
            "descriptions like these. If they are only not coded yet, leave them out with --drop-uncoded" in summary
        )

    def test_rows_without_a_first_code_are_left_out_where_asked_for(self, run, read_csv, tmp_path):
        rows = [*([f"x{i}", "61110", ""] for i in range(4)), ["a", "", "far too long"], ["", "NA", ""], ["c", "?", ""]]
        key, report = run(rows, drop_uncoded=True)
        assert key == {"61110": 0}
        assert (report.rows_dropped, report.rows_train + report.rows_val) == (3, 4)
        assert report.dropped == {"no first code": 3}
        assert "3 rows left out, listed in rejected_rows.csv: no first code 3" in report.summary()
        assert "it becomes" not in report.summary()
        remedy = "code the description; without --drop-uncoded its code is '?'"
        assert [line[:6] for line in read_csv(tmp_path / "out" / "rejected_rows.csv")[1:]] == [
            ["6", "c1", "", "no first code", remedy, "a"],
            ["7", "c1", "NA", "no first code", remedy, ""],
            ["8", "c1", "?", "no first code", remedy, "c"],
        ]

    def test_dropping_rows_without_a_code_does_not_cover_others(self, run):
        rows = [["x", "61110", ""], ["y", "61110", ""], ["a", "", ""], ["b", "611100", ""]]
        with pytest.raises(
            UsageError, match=r"1 of 4 rows(.|\n)*too long: 1 row(.|\n)*leave them out with --drop-bad"
        ) as e:
            run(rows, drop_uncoded=True)
        assert "no first code" not in str(e.value)
        assert run(rows, drop_uncoded=True, drop_bad_rows=True)[1].dropped == {"too long": 1, "no first code": 1}

    def test_rows_are_offered_to_be_left_out_only_where_that_helps(self, run):
        with pytest.raises(UsageError) as caught:
            run([["a", "611101"], ["b", "6æ110"]])
        assert "--drop-bad-labels" not in str(caught.value)
        with pytest.raises(UsageError, match=r"--drop-bad-labels leaves out 1 row: not those that are only too short"):
            run([["a", "611101"], ["b", "6111"], ["c", "61110"]])


def test_all_bad_rows_are_listed_when_preparation_fails(write_csv, read_csv, tmp_path, formatter):
    path = write_csv([["occ1", "hisco_1"], *([f"x{i}", "611101"] for i in range(25)), ["y", "6111"], ["", "61110"]])
    with pytest.raises(UsageError, match=r"All of them are listed in .*out/rejected_rows\.csv"):
        prepare(path, "occ1", formatter, tmp_path / "out", 0.1)
    header, *rows = read_csv(tmp_path / "out" / "rejected_rows.csv")
    assert header[:5] == ["row", "column", "value", "reason", "remedy"]
    assert [int(row[0]) for row in rows] == list(range(2, 29))
    assert [row[1:4] for row in rows[-2:]] == [["hisco_1", "6111", "too short"], ["occ1", "", "missing text"]]
    assert "--pad-codes" in rows[-2][4]


def test_a_list_that_cannot_be_written_does_not_hide_what_is_wrong(write_csv, tmp_path, formatter, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("histocc.preparation.rejected.write_rejected", full)
    with pytest.raises(UsageError, match=r"^1 of 2 rows of table\.csv do") as caught:
        prepare(write_csv([["occ1", "hisco_1"], ["a", "6"], ["b", "61110"]]), "occ1", formatter, tmp_path / "out", 0.5)
    assert "are listed in" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["csv", "parquet", "frame"])
def test_columns_of_floats(source, write_csv, read_csv, tmp_path, formatter3):
    frame = pd.DataFrame({
        "occ1": ["a", "b", "c", "d"],
        "c1": [61110.0, 62120.0, float("nan"), 61110.0],
        "c2": [None, "02305", None, "10.10"],
        "c3": [None, 12345, None, None],
    })  # fmt: skip
    if source == "csv":
        frame.to_csv(tmp_path / "t.csv", index=False)
    else:
        frame.to_parquet(tmp_path / "t.parquet")
    dataset = frame if source == "frame" else tmp_path / f"t.{source}"
    key, report = prepare(dataset, "occ1", formatter3, tmp_path / "out", 0.5)
    assert key == {"61110": 0, "62120": 1, "02305": 2, "12345": 3, "?": 4, "10.10": 5}
    assert report.float_cells == 4
    assert "Column 'c1' holds decimal numbers: 61110.0 is taken as the code 61110 (3 cells)" in report.summary()


def test_points_that_belong_to_the_codes_stay(write_csv, tmp_path):
    formatter = construct_general_purpose_formatter(4, ["c1"])
    key, report = prepare(
        write_csv([["occ1", "c1"], ["a", "10.0"], ["b", "10.1"]]), "occ1", formatter, tmp_path / "out", 0.5
    )
    assert key == {"10.0": 0, "10.1": 1}
    assert report.float_cells == 0


def test_numbers_in_parquet(tmp_path):
    frame = pd.DataFrame(
        {"occ1": ["a", "b"], "c1": [61110, 1234567890123456789], "c2": pd.array([None, 2**62 + 1], "Int64")}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    formatter = construct_general_purpose_formatter(19, ["c1", "c2"])
    key, _ = prepare(
        tmp_path / "t.parquet", "occ1", formatter, tmp_path / "out", 0.5, allow_codes_shorter_than_block_size=True
    )
    assert set(key) == {"61110", "1234567890123456789", str(2**62 + 1)}


def test_csv_parquet_frame_and_gzip_agree(write_csv, tmp_path, formatter3):
    rows = [[f"text {i}, {'NA' * (i % 2)}", f"0{i % 7}110", "61110" if i % 3 else "", ""] for i in range(200)]
    path = write_csv([HEADER, *rows])
    frame = pd.DataFrame(rows, columns=HEADER)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv.gz", index=False)
    datasets = [path, frame.replace("", None), tmp_path / "t.parquet", tmp_path / "t.csv.gz"]
    for i, dataset in enumerate(datasets):
        prepare(dataset, "occ1", formatter3, tmp_path / str(i), 0.1, progress=True)
        for name in ("data_train.csv", "data_val.csv", "key.csv"):
            assert (tmp_path / str(i) / name).read_bytes() == (tmp_path / "0" / name).read_bytes()


def test_codes_beyond_the_first_chunk_keep_the_order_of_appearance(write_csv, tmp_path, formatter):
    codes = [f"{i // 10_000:02}{i % 997:03}" for i in range(120_000)]
    path = write_csv([["occ1", "hisco_1"], *(["x", code] for code in codes)])
    key, _ = prepare(path, "occ1", formatter, tmp_path / "out", 0.1)
    assert list(key) == list(dict.fromkeys(codes))


def test_unused_language_column_is_pointed_out(write_csv, tmp_path, formatter):
    path = write_csv([["occ1", "hisco_1", "lang"], *[["farmer", "61110", "da"]] * 9])
    _, report = prepare(path, "occ1", formatter, tmp_path / "out", 0.5)
    assert "column 'lang' is not used: --language-col lang would" in report.summary()


class TestAllCodes:
    @pytest.fixture
    def add(self, write_csv, tmp_path, formatter):
        path = write_csv([["occ1", "hisco_1"], *[["farmer", "61110"]] * 9, ["x", "02305"]], "data.csv")

        def run(file, **options):
            return prepare(path, "occ1", formatter, tmp_path / "out", 0.5, all_codes_file=file, **options)

        return run

    def test_the_data_come_first(self, add, write_csv, tmp_path):
        key, report = add(write_csv([["label", "code"], ["a", "00001"], ["b", "61110"], ["c", "?"], ["d", "NA"]]))
        assert key == {"61110": 0, "02305": 1, "00001": 2, "?": 3} == read_key(tmp_path / "out" / "key.csv")
        assert report.codes_added == 2
        assert "2 codes that the data lack added from" in report.summary()

    @pytest.mark.parametrize(
        ("header", "column", "expected"),
        [
            (["code", "pst2_1", "system_code"], None, "BBBBB"),
            (["code", "x", "system_code"], None, "CCCCC"),
            (["x", "y", "z"], None, "AAAAA"),
            (["x", "code", "z"], None, "BBBBB"),
            (["x", "code", "z"], "z", "CCCCC"),
        ],
    )
    def test_which_column(self, add, write_csv, header, column, expected):
        key, _ = add(write_csv([header, ["AAAAA", "BBBBB", "CCCCC"]]), all_codes_col=column)
        assert list(key)[2:] == [expected]

    def test_a_code_per_line(self, add, tmp_path):
        (tmp_path / "codes.txt").write_text("00001\n61110 \n\n 00002\n")
        key, _ = add(tmp_path / "codes.txt")
        assert list(key)[2:] == ["00001", "00002"]

    def test_parquet_with_numbers(self, add, tmp_path):
        pd.DataFrame({"code": [12345.0, 61110.0]}).to_parquet(tmp_path / "codes.parquet")
        key, _ = add(tmp_path / "codes.parquet")
        assert list(key)[2:] == ["12345"]

    def test_codes_that_do_not_fit_are_pointed_out(self, add, write_csv):
        _, report = add(write_csv([["x"], ["carpenter"], ["00001"]]))
        assert re.search(r"Warning: 1 code of .* cannot be written in a block of 5, such as 'carp", report.summary())


class TestPreparedFolders:
    @pytest.fixture
    def prepared(self, write_csv, tmp_path, formatter):
        path = write_csv([["occ1", "hisco_1"], *[["farmer", "61110"]] * 10], "data.csv")
        prepare(path, "occ1", formatter, tmp_path / "out", 0.1)
        return tmp_path / "out"

    def test_used_as_it_is_with_edits(self, prepared, formatter, capsys):
        (prepared / "key.csv").write_text("system_code,code\nedited,0\n")
        before = {path.name: path.read_bytes() for path in prepared.iterdir()}
        key = prepare_finetuning_data(prepared.parent / "data.csv", "occ1", formatter, prepared, 0.1)
        assert key == {"edited": 0}
        assert {path.name: path.read_bytes() for path in prepared.iterdir()} == before
        out = capsys.readouterr().out
        assert "prepared before" in out
        assert "are used as they are, with any edits" in out
        assert "Warning" not in out

    def test_no_dataset_is_needed(self, prepared, formatter):
        key, report = prepare(None, "occ1", formatter, prepared, 0.1)
        assert key == {"61110": 0}
        assert report.reused

    def test_codes_are_not_added_to_a_key_that_is_there(self, prepared, formatter):
        _, report = prepare(None, "occ1", formatter, prepared, 0.1, all_codes_file="codes.csv")
        assert "Warning: --all-codes-file has no effect" in report.summary()

    def test_flags_that_disagree(self, prepared):
        notes = prepared_notes(prepared, target_cols=["hisco_1"], share_val=0.2)
        assert notes[1:] == ["Warning: prepared with --share-val 0.1; --share-val 0.2 has no effect"]

    def test_another_table(self, prepared, write_csv, formatter):
        other = write_csv([["occ1", "hisco_1"], ["baker", "77610"]], "other.csv")
        message = (
            r"out was prepared from .*data\.csv, and .*other\.csv has another content\. Prepare it again with --over"
        )
        with pytest.raises(UsageError, match=message):
            prepare(other, "occ1", formatter, prepared, 0.1)
        with pytest.raises(UsageError, match=message):
            prepare(prepared / "no" / "other.csv", "occ1", formatter, prepared, 0.1)
        key, report = prepare(other, "occ1", formatter, prepared, 0.1, keep_prepared=True)
        assert key == {"61110": 0}
        assert re.search(
            r"Warning: .*other\.csv has another content; the files are used as they were", report.summary()
        )
        # The same table under another name is the same table.
        copy = other.with_name("copy.csv")
        copy.write_bytes((prepared.parent / "data.csv").read_bytes())
        assert "Warning" not in prepare(copy, "occ1", formatter, prepared, 0.1)[1].summary()

    def test_other_languages_columns_and_blocks(self, prepared):
        notes = prepared_notes(prepared, input_col="text", language="en", language_col="lang", block_size=6)
        assert notes[1:] == [
            "Warning: prepared with --input-col occ1; --input-col text has no effect",
            "Warning: prepared with --language unk; --language en has no effect",
            "Warning: prepared without --language-col; --language-col lang has no effect",
            "Warning: prepared with --block-size 5, now 6: the codes were looked at for blocks of 5",
        ]
        notes = prepared_notes(prepared, pad_codes=True, short_codes=["-1", "-2"])
        assert notes[1:] == [
            "Warning: prepared without --pad-codes; --pad-codes has no effect",
            "Warning: prepared without --short-codes; --short-codes -1 -2 has no effect",
        ]
        # Who goes on with the folder need not repeat what decided the preparation.
        assert len(prepared_notes(prepared, input_col="occ1", language="unk", block_size=5)) == 1

    def test_a_table_that_has_changed(self, prepared, formatter):
        table = prepared.parent / "data.csv"
        assert len(prepared_notes(prepared, dataset=table)) == 1
        os.utime(table, (1, 1))
        assert len(prepared_notes(prepared, dataset=table)) == 1
        with table.open("a") as file:
            file.write("baker,77610\n")
        with pytest.raises(UsageError, match=r"data\.csv is no longer the table that .*out was prepared from"):
            prepare(table, "occ1", formatter, prepared, 0.1)
        assert re.search(
            "is no longer the table that .* was prepared from; the files are used as they were prepared",
            prepared_notes(prepared, dataset=table, keep_prepared=True)[1],
        )
        # A folder that does not say what the table held cannot know whether a newer date means another content.
        facts = json.loads((prepared / "preparation.json").read_text())
        del facts["dataset_content"]
        (prepared / "preparation.json").write_text(json.dumps(facts))
        assert "is no longer the table that" in prepared_notes(prepared, dataset=table)[1]
        table.unlink()
        assert len(prepared_notes(prepared, dataset=table)) == 1

    def test_corrected_prepared_and_looked_at_again(self, prepared, formatter):
        table = prepared.parent / "data.csv"
        (prepared / "data_train.csv").write_text("edited")
        table.write_text(table.read_text() + "baker,776 10\n" * 5)
        with pytest.raises(UsageError, match=r"5 of 15 rows .*(?s:.*)All of them are listed in .*rejected_rows\.csv"):
            prepare(table, "occ1", formatter, prepared, 0.2, overwrite=True)
        assert (prepared / "data_train.csv").read_text() == "edited"
        table.write_text(table.read_text().replace("776 10", "77610"))
        key, report = prepare(table, "occ1", formatter, prepared, 0.2, overwrite=True)
        assert key == {"61110": 0, "77610": 1} == read_key(prepared / "key.csv")
        assert (report.rows_train, report.rows_val) == (12, 3)
        assert "data_train.csv from before is now data_train.csv.before" in report.summary()
        assert (prepared / "data_train.csv.before").read_text() == "edited"
        assert not (prepared / "rejected_rows.csv").exists()

    @pytest.mark.parametrize("name", ["last.bin", "best.bin", "120.bin", "logs.csv"])
    def test_the_files_of_a_run_are_not_robbed_of_their_data(self, prepared, formatter, name):
        (prepared / name).write_bytes(b"x")
        before = {path.name: path.read_bytes() for path in prepared.iterdir()}
        with pytest.raises(UsageError, match=f"--overwrite would take the data .*out holds {name}\\. Choose another"):
            prepare(prepared.parent / "data.csv", "occ1", formatter, prepared, 0.2, overwrite=True)
        assert {path.name: path.read_bytes() for path in prepared.iterdir()} == before

    def test_other_code_columns(self, prepared, write_csv, formatter3, tmp_path):
        with pytest.raises(UsageError, match=r"has no column 'c9': it was prepared with --target-cols hisco_1"):
            prepared_notes(prepared, target_cols=["hisco_1", "c9"])
        prepare(write_csv([HEADER, *GOOD]), "occ1", formatter3, tmp_path / "three", 0.5)
        notes = prepared_notes(tmp_path / "three", target_cols=["c1"])
        assert "Warning: prepared with --target-cols c1 c2 c3, now c1" in notes[1]

    def test_folders_of_older_versions(self, prepared):
        (prepared / "preparation.json").unlink()
        assert is_prepared(prepared)
        notes = prepared_notes(prepared, dataset="other.csv", target_cols=["hisco_1"], share_val=0.7)
        assert len(notes) == 1
        with pytest.raises(UsageError, match=r"has no column 'c9': it was prepared with --target-cols hisco_1"):
            prepared_notes(prepared, target_cols=["c9"])

    def test_an_old_key_with_a_class_for_missing_codes_is_honoured(self, prepared, formatter):
        (prepared / "key.csv").write_text("system_code,code\n61110,0\n,1\n")
        key, _ = prepare(None, "occ1", formatter, prepared, 0.1)
        assert key == {"61110": 0, "": 1}

    def test_incomplete_folders_are_prepared_again(self, prepared, formatter):
        (prepared / "data_val.csv").unlink()
        (prepared / "data_train.csv").write_text("edited")
        assert not is_prepared(prepared)
        _, report = prepare(prepared.parent / "data.csv", "occ1", formatter, prepared, 0.1)
        assert "data_train.csv from before is now data_train.csv.before" in report.summary()
        assert (prepared / "data_train.csv.before").read_text() == "edited"
        assert is_prepared(prepared)

    def test_facts(self, prepared):
        facts = json.loads((prepared / "preparation.json").read_text())
        assert facts["target_cols"] == ["hisco_1"]
        assert facts["share_val"] == 0.1
        assert (facts["rows_train"], facts["rows_val"], facts["classes"]) == (9, 1, 1)
