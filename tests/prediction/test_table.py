"""Coding a table with a coder that is easily predicted: rows, order, restarts, several formats."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.prediction.coder import Coded
from histocc.prediction.output import new_columns, write_predictions
from histocc.prediction.pairs import NO_TEXT, collect_pairs
from histocc.prediction.review import choose_rows, write_review
from histocc.prediction.work import ShrinkingBatches, Work, code_pairs
from histocc.processes.distributed import Processes


class LengthCoder:
    """The code of a text is its length and its language, its confidence a function of both."""

    method, max_codes, alternatives = "greedy", 2, 2

    def __init__(self, most=10**9, die_after=None):
        self.most, self.die_after, self.sizes = most, die_after, []

    def __call__(self, texts, languages):
        if len(texts) > self.most:
            raise torch.OutOfMemoryError("too many")
        if self.die_after is not None and len(self.sizes) == self.die_after:
            raise KeyboardInterrupt
        self.sizes.append(len(texts))
        codes = np.full((len(texts), 2, 2), "", dtype=object)
        for i, (text, language) in enumerate(zip(texts, languages)):
            codes[i, 0] = f"{len(text):05d}", language
            codes[i, 1, 0] = "other"
        sure = np.array([[1 / (1 + len(text)), 0.01] for text in texts])
        return Coded(codes, np.where(codes != "", sure[:, :, None], np.nan), sure)


def code(folder, source, target, coder=None, batch_size=3, processes=None, columns=None, keep_work=False, **options):
    coder = coder or LengthCoder()
    work = Work(folder / "work", {"batch_size": batch_size})
    pairs, rows = collect_pairs(source, "text", "lang", "unk", work.rows_file)
    code_pairs(pairs, coder, batch_size, work, processes or Processes(), warn=print)
    coded = work.results(len(pairs), coder)
    pair_of_row = np.fromfile(work.rows_file, dtype=np.int32)
    added = new_columns(coded, coder.method, **options)
    write_predictions(source, target, columns or ["id", "text", "lang"], pair_of_row, added)
    if not keep_work:
        work.remove()
    return pairs, rows


def table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "lang"])
        writer.writerows(rows)
    return path


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


ROWS = [
    ("007", "smith", "en"),
    ("1.50", "", "en"),
    ("x", "smith", ""),
    ("", "smith", "en"),
    ("NA", 'a "quoted", text', "da"),
    ("6", " ", "da"),
    ("", "", ""),
    ("8", "nan", "da"),
    ("9", "two\nlines", "en"),
]


def test_every_row_comes_out_once_in_order_with_its_columns_untouched(tmp_path):
    source = table(tmp_path / "in.csv", ROWS)
    pairs, rows = code(tmp_path, source, tmp_path / "out.csv")
    assert rows == len(ROWS)
    assert len(pairs) == 5
    out = read(tmp_path / "out.csv")
    assert [(row["id"], row["text"], row["lang"]) for row in out] == ROWS
    for row, (_, text, language) in zip(out, ROWS):
        wanted = (f"{len(text):05d}", language or "unk", "greedy") if text.strip() else ("", "", "")
        assert (row["code_1"], row["code_2"], row["method"]) == wanted
        assert row["confidence"] == (str(round(1 / (1 + len(text)), 6)) if text.strip() else "")
        assert row["alternative_2"] == ("other" if text.strip() else "")
    assert not (tmp_path / "work").exists()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.tuples(st.text('ab1 ,"é\r\n', max_size=4), st.sampled_from(["en", "da", ""])), min_size=1),
    batch_size=st.integers(1, 7),
)
def test_any_table_and_batch_size_give_what_a_plain_loop_gives(tmp_path_factory, rows, batch_size):
    folder = tmp_path_factory.mktemp("any")
    source = table(folder / "in.csv", [(str(i), *row) for i, row in enumerate(rows)])
    code(folder, source, folder / "out.csv", batch_size=batch_size)
    known = pd.read_csv(source, dtype=str, keep_default_na=False)
    out = pd.read_csv(folder / "out.csv", dtype=str, keep_default_na=False)
    assert out[["id", "text", "lang"]].equals(known)
    wanted = [f"{len(t):05d}" if t.strip() else "" for t in known["text"]]
    assert out["code_1"].tolist() == wanted


def test_a_table_killed_twice_ends_as_one_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("histocc.prediction.work.SAVE_SECONDS", -1.0)
    source = table(tmp_path / "in.csv", [(i, "x" * (i % 17 + 1), "en") for i in range(200)])
    code(tmp_path, source, tmp_path / "alone.csv")
    sizes = []
    for die_after in (2, 1):
        coder = LengthCoder(die_after=die_after)
        with pytest.raises(KeyboardInterrupt):
            code(tmp_path, source, tmp_path / "out.csv", coder)
        sizes.append(sum(coder.sizes))
        assert not (tmp_path / "out.csv").exists()
    last = LengthCoder()
    code(tmp_path, source, tmp_path / "out.csv", last)
    assert sum(sizes) + sum(last.sizes) == 17, "what was done was done again"
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_work_of_another_task_is_not_used(tmp_path):
    first = Work(tmp_path / "work", {"threshold": 1})
    coder = LengthCoder()
    first.save(0, [0], np.array([0]), coder(["a"], ["en"]))
    assert Work(tmp_path / "work", {"threshold": 1}).done() == {0}
    assert Work(tmp_path / "work", {"threshold": 2}).done() == set()
    assert json.loads((tmp_path / "work" / "task.json").read_text()) == {"threshold": 2}


def test_several_processes_share_the_batches_and_give_the_same_file(tmp_path):
    source = table(tmp_path / "in.csv", [(i, "x" * (i % 17 + 1), "en") for i in range(60)])
    code(tmp_path, source, tmp_path / "alone.csv")
    coders = [LengthCoder(), LengthCoder()]
    work = Work(tmp_path / "work", {"batch_size": 3})
    pairs, _ = collect_pairs(source, "text", "lang", "unk", work.rows_file)
    # One after the other: a process of its own for each is tried with the command.
    for rank, coder in enumerate(coders):
        code_pairs(pairs, coder, 3, work, Processes(rank=rank, world_size=2))
    assert {len(coder.sizes) for coder in coders} == {3}
    code(tmp_path, source, tmp_path / "out.csv", never := LengthCoder(die_after=0))
    assert never.sizes == []
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_a_batch_too_large_for_the_memory_is_halved_and_told_once(tmp_path, capsys):
    source = table(tmp_path / "in.csv", [(i, "x" * (i + 1), "en") for i in range(40)])
    code(tmp_path, source, tmp_path / "alone.csv", batch_size=16)
    code(tmp_path, source, tmp_path / "out.csv", coder := LengthCoder(most=5), batch_size=16)
    assert max(coder.sizes) == 4
    assert sum(coder.sizes) == 40
    told = capsys.readouterr().out
    assert told.count("Warning") == 2
    assert "16 texts at a time are too much for the memory; it goes on with 8" in told
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_a_single_text_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        ShrinkingBatches(LengthCoder(most=0), print)(["a", "b"], ["en", "en"])


def test_the_longest_come_first(tmp_path):
    source = table(tmp_path / "in.csv", [(i, "x" * (i % 7 + 1), "en") for i in range(40)])
    pairs, _ = collect_pairs(source, "text", "lang", "unk", tmp_path / "rows")
    lengths = [len(pairs.texts[i]) for i in pairs.longest_first()]
    assert lengths == sorted(lengths, reverse=True) == [7, 6, 5, 4, 3, 2, 1]


def test_parquet_keeps_the_types_of_the_table(tmp_path):
    frame = pd.DataFrame({"id": [1, 2, None], "text": ["smith", None, "nan"], "lang": ["en", "en", "da"]})
    frame["id"] = frame["id"].astype("Int64")
    frame.to_parquet(tmp_path / "in.parquet")
    code(tmp_path, tmp_path / "in.parquet", tmp_path / "out.parquet")
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert out["id"].astype("Int64").equals(frame["id"])
    assert out["code_1"].tolist() == ["00005", "", "00003"]
    assert out["confidence"].isna().tolist() == [False, True, False]
    source = table(tmp_path / "in.csv", ROWS)
    code(tmp_path, source, tmp_path / "text.parquet")
    assert pd.read_parquet(tmp_path / "text.parquet")["id"].tolist() == [row[0] for row in ROWS]
    code(tmp_path, tmp_path / "in.parquet", tmp_path / "out.csv")
    assert [row["id"] for row in read(tmp_path / "out.csv")] == ["1", "2", ""]


def test_codes_for_spreadsheets_are_texts(tmp_path):
    source = table(tmp_path / "in.csv", ROWS[:2])
    code(tmp_path, source, tmp_path / "out.csv", for_spreadsheets=True)
    assert [row["code_1"] for row in read(tmp_path / "out.csv")] == ['="00005"', ""]


def test_descriptions_stand_beside_their_codes(tmp_path):
    source = table(tmp_path / "in.csv", ROWS[:2])
    code(tmp_path, source, tmp_path / "out.csv", descriptions={"00005": "Smiths"})
    first, second = read(tmp_path / "out.csv")
    assert (first["desc_1"], first["desc_2"], second["desc_1"]) == ("Smiths", "", "")


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.integers(-1, 9), min_size=1, max_size=60), number=st.integers(1, 30), seed=st.integers(0, 99))
def test_rows_to_review_are_distinct_texts_of_the_table(pairs, number, seed):
    pair_of_row = np.array(pairs, dtype=np.int32)
    confidence = np.linspace(0, 1, 10)
    counts = [max(1, pairs.count(i)) for i in range(10)]
    drawn, doubtful = choose_rows(pair_of_row, confidence, counts, number, seed)
    coded = int((pair_of_row >= 0).sum())
    assert len(drawn) == min(number - number // 2, coded)
    assert len(set(drawn.tolist())) == len(drawn)
    assert (pair_of_row[drawn] >= 0).all()
    assert len(doubtful) <= number // 2
    chosen = pair_of_row[doubtful].tolist()
    assert len(set(chosen)) == len(chosen)
    assert not set(chosen) & set(pair_of_row[drawn].tolist())


def test_doubt_weighs_by_the_rows_that_share_a_text():
    """A sure text of many rows can matter more than an unsure one of a single row."""
    pair_of_row = np.array([0] * 50 + [1] + [2] * 5)
    _, doubtful = choose_rows(pair_of_row, np.array([0.5, 0.0, 0.9]), [50, 1, 5], 3, seed=1)
    assert len(doubtful) == 1
    assert pair_of_row[doubtful[0]] != 2


def test_a_review_table_is_ready_to_be_corrected(tmp_path):
    source = table(tmp_path / "in.csv", ROWS)
    pairs, _ = code(tmp_path, source, tmp_path / "out.csv", keep_work=True)
    work = Work(tmp_path / "work", {"batch_size": 3})
    coded = work.results(len(pairs), LengthCoder())
    pair_of_row = np.fromfile(work.rows_file, dtype=np.int32)
    assert (pair_of_row == NO_TEXT).sum() == 3
    assert write_review(tmp_path / "review.csv", pairs, pair_of_row, coded, 4) == 4
    rows = read(tmp_path / "review.csv")
    assert [row["sample"] for row in rows] == ["random"] * 2 + ["least sure"] * 2
    assert {row["checked"] for row in rows} == {""}
    for row in rows:
        assert ROWS[int(row["row"]) - 2][1] == row["occ1"]
        assert row["code_1"] == f"{len(row['occ1']):05d}"
