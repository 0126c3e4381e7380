"""Which rows validate, and what is said about the split."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from histocc.errors import UsageError
from histocc.formatter import construct_general_purpose_formatter
from histocc.preparation import prepare, prepared_notes

HEADER = ["occ1", "c1", "c2", "parish"]


@pytest.fixture
def run(write_csv, read_csv, tmp_path):
    """Prepare rows; the training rows, the validation rows and the report."""

    def run(rows, share_val=0.25, **options):
        formatter = construct_general_purpose_formatter(5, ["c1", "c2"])
        path = write_csv([HEADER, *rows])
        _, report = prepare(path, "occ1", formatter, tmp_path / "out", share_val, overwrite=True, **options)
        return *(read_csv(tmp_path / "out" / name)[1:] for name in ("data_train.csv", "data_val.csv")), report

    return run


def row(i, text=None, code="61110", parish="x"):
    return [f"text {i}" if text is None else text, code, "", parish]


def test_what_a_random_split_does_to_the_figures_is_told(run):
    train, val, report = run([row(i, text=f"text {i % 4}", code=f"{10000 + i}") for i in range(20)])
    assert (len(train), len(val)) == (15, 5)
    assert report.rows_val_seen == 5
    assert report.codes_only_in_val == sorted(code for _, code, _, _ in val)
    assert "5 of 5 validation rows have a description that training sees too" in report.summary()
    assert "5 codes of the validation rows that training never sees, which lowers the figures" in report.summary()
    assert "repeats exactly" not in report.summary()

    _, _, report = run([row(0), row(0), row(1), row(0), *(row(i) for i in range(5, 10))])
    assert report.rows_duplicate == 2
    assert "2 rows that another row repeats exactly, with codes and language" in report.summary()
    _, _, report = run([row(i) for i in range(9)])
    assert not re.search("description that|never sees|repeats", report.summary())


def test_rows_of_a_description_stay_together(run):
    rows = [row(i, text=f"text {i % 7}", code=f"{10000 + i % 9}") for i in range(63)]
    train, val, report = run(rows, split_by="description")
    assert not {text for text, *_ in train} & {text for text, *_ in val}
    assert len(val) == 9 == report.rows_val
    assert sorted(r[:2] for r in train + val) == sorted(r[:2] for r in rows)
    again = run(rows, split_by="occ1")
    assert (train, val) == again[:2]


def test_rows_of_a_parish_stay_together(run):
    rows = [row(i, parish=["", "Ribe", "Odense", "Viborg", "Aarhus"][i % 5]) for i in range(40)]
    parish_of = {text: parish for text, _, _, parish in rows}
    train, val, report = run(rows, split_by="parish")
    assert len({parish_of[text] for text, *_ in val}) == 1
    assert not {parish_of[text] for text, *_ in val} & {parish_of[text] for text, *_ in train}
    assert (len(train), len(val)) == (32, 8)
    assert "Split by 'parish': 1 of 5 values went to validation" in report.summary()
    assert "8 rows without a value in 'parish', kept together" in report.summary()


def test_groups_larger_than_the_share(run):
    rows = [row(i, parish="large" if i % 3 else "small") for i in range(30)]
    train, val, _ = run(rows, share_val=0.1, split_by="parish")
    assert (len(train), len(val)) == (20, 10)
    with pytest.raises(UsageError, match="--split-by parish: all rows that fit have one and the same value"):
        run([row(i) for i in range(9)], split_by="parish")
    with pytest.raises(UsageError, match=r"has no column 'parisch' \(did you mean 'parish'"):
        run(rows, split_by="parisch")


class TestTableOfOnesOwn:
    @pytest.fixture
    def other(self, write_csv):
        rows = [["baker", "77610", "", "y"], ["text 1", "61110", "", "y"], ["late text", "NA", "", "y"]]
        return write_csv([HEADER, *rows], "own.csv")

    def test_it_validates_and_all_others_train(self, run, other, tmp_path):
        train, val, report = run([row(i) for i in range(9)], val_data=other)
        assert [r[0] for r in train] == [f"text {i}" for i in range(9)]
        assert [r[:2] for r in val] == [["baker", "77610"], ["text 1", "61110"], ["late text", "?"]]
        assert report.rows_val_seen == 1
        assert report.codes_only_in_val == ["77610", "?"]
        assert (tmp_path / "out" / "key.csv").read_text() == "system_code,code\n61110,0\n77610,1\n?,2\n"

    def test_its_bad_rows_are_named_with_their_file(self, run, write_csv, read_csv, tmp_path):
        other = write_csv([HEADER, row(1), row(2, code="6111é")], "own.csv")
        with pytest.raises(UsageError, match=r"^2 of 11 rows of table\.csv and own\.csv do not fit") as caught:
            run([row(0, text=""), *(row(i) for i in range(8))], val_data=other)
        assert "\n    table.csv, row 2, column 'occ1': ''" in str(caught.value)
        assert "\n    own.csv, row 3, column 'c1': '6111é'" in str(caught.value)
        listed = read_csv(tmp_path / "out" / "rejected_rows.csv")
        assert [r[:3] for r in listed] == [
            ["file", "row", "column"],
            ["table.csv", "2", "occ1"],
            ["own.csv", "3", "c1"],
        ]

    def test_two_files_of_the_same_name_are_told_apart(self, run, write_csv, read_csv, tmp_path):
        (tmp_path / "later").mkdir()
        other = write_csv([HEADER, row(1), row(2, code="6111é")], "later/table.csv")
        first = tmp_path / "table.csv"
        with pytest.raises(UsageError, match=f"^1 of 10 rows of {first} and {other} do") as caught:
            run([row(i) for i in range(8)], val_data=other)
        assert f"\n    {other}, row 3, column 'c1': '6111é'" in str(caught.value)
        assert [r[0] for r in read_csv(tmp_path / "out" / "rejected_rows.csv")] == ["file", str(other)]
        frames = (
            pd.DataFrame([HEADER, row(i, code=code)]).T.set_index(0).T for i, code in ((1, "6111é"), (2, "61110"))
        )
        formatter = construct_general_purpose_formatter(5, ["c1", "c2"])
        with pytest.raises(UsageError, match=r"(?s)^1 of 2 rows of .*\n    the table to train on, row 2, column 'c1'"):
            prepare(next(frames), "occ1", formatter, tmp_path / "frames", 0.1, val_data=next(frames))

    def test_both_need_rows(self, run, write_csv):
        other = write_csv([HEADER, row(2, code="6111é")], "own.csv")
        with pytest.raises(UsageError, match=r"No row of own\.csv would be left"):
            run([row(i) for i in range(8)], val_data=other, drop_bad_rows=True)

    def test_what_contradicts_itself(self, run, other, tmp_path):
        rows = [row(i) for i in range(8)]
        with pytest.raises(UsageError, match="--val-data names the validation rows, and --split-by parish draws them"):
            run(rows, val_data=other, split_by="parish")
        with pytest.raises(UsageError, match=r"--val-data: There is no file .*none\.csv"):
            run(rows, val_data=tmp_path / "none.csv")
        with pytest.raises(UsageError, match="--val-data is the table of --dataset itself"):
            run(rows, val_data=tmp_path / "table.csv")

    def test_a_prepared_folder_knows_it(self, run, other, tmp_path, write_csv):
        run([row(i) for i in range(8)], val_data=other)
        assert len(prepared_notes(tmp_path / "out", val_data=other)) == 1
        with pytest.raises(UsageError, match=r"prepared from .*own\.csv, and .*table\.csv has another content"):
            prepared_notes(tmp_path / "out", val_data=tmp_path / "table.csv")
        notes = prepared_notes(tmp_path / "out", split_by="parish")
        assert notes[1:] == ["Warning: prepared without --split-by; --split-by parish has no effect"]
        run([row(i) for i in range(8)])
        assert re.fullmatch(
            r"Warning: prepared without --val-data; --val-data .*own\.csv has no effect",
            prepared_notes(tmp_path / "out", val_data=other)[1],
        )
