"""Reading tables: every value of a file arrives, with its row number, or an error says which row is at fault."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import tempfile
from decimal import Decimal
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.errors import UsageError
from histocc.files import tables
from histocc.files.tables import as_text, cells_of, column_names, peek, read_chunks

CELLS = st.one_of(
    st.sampled_from(["", "", " ", "nan", "007", "a,b", 'a "b" c', "two\nlines", "\ufeffx", "æ🙂"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6),
)


def read(path, columns, **options):
    """All rows as (row number, values), and how many empty ones were left out."""
    rows, empty = [], 0
    for chunk in read_chunks(path, columns, **options):
        values = [chunk[column].tolist() for column in columns]
        for column, texts in zip(columns, values):
            distinct, numbers = chunk[column].distinct()
            assert [distinct[i] for i in numbers] == texts
            assert set(distinct) == set(texts)
        rows += zip(chunk.row_numbers.tolist(), map(list, zip(*values)))
        empty += chunk.empty_rows
    return rows, empty


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.lists(CELLS, min_size=0, max_size=8), st.just(["x"] * 3)), max_size=12),
    st.permutations(range(3)),
    st.integers(1, 3),
    st.sampled_from(["\n", "\r\n"]),
)
def test_as_the_csv_module_reads_it(records, order, n_columns, line_end):
    columns = [f"c{i}" for i in order[:n_columns]]
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(tables, "CHUNK_ROWS", 3):
        path = Path(folder, "t.csv")
        with path.open("w", encoding="utf-8", newline="") as file:
            quoting = csv.writer(file, lineterminator=line_end, quoting=csv.QUOTE_ALL)
            quoting.writerow(["c0", "c1", "c2"])
            quoting.writerows(records)
        numbered = list(enumerate(records, start=2))
        surplus = [number for number, record in numbered if any(map(str.strip, record[3:]))]
        # One further out, behind two empty ones, is only looked for in rows that seem to be empty.
        wanted = [int(c[1]) for c in columns]
        seems_empty = [not any((record + [""] * 3)[i].strip() for i in wanted) for record in records]
        if any(any(map(str.strip, r[3 : None if seems else 5])) for r, seems in zip(records, seems_empty)):
            with pytest.raises(UsageError, match=rf"{len(surplus)} of them, first row {surplus[0]} with"):
                read(path, columns)
            return
        full = [(number, record) for number, record in numbered if any(map(str.strip, record))]
        expected = [(number, [(record + [""] * 3)[int(c[1])] for c in columns]) for number, record in full]
        assert read(path, columns) == (expected, len(records) - len(full))
        assert peek(path) == (["c0", "c1", "c2"], bool(full))


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("surplus", [",x", ",,x", ",x,y,z,u,v"])
@pytest.mark.parametrize("columns", [["a"], ["b"], ["b", "a", "c"]])
@pytest.mark.filterwarnings("error")
def test_a_value_too_many_is_found_wherever_it_stands(tmp_path, monkeypatch, at, surplus, columns):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    lines = ["1,2,3"] * 5
    lines[at] += surplus
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a,b,c", "", *lines]))
    with pytest.raises(UsageError, match=rf"names 3 columns: 1 of them, first row {at + 3} with .*'1,2,3{surplus}'"):
        read(path, columns)


@pytest.mark.parametrize("columns", [["a", "b"], ["a"]])
@pytest.mark.parametrize("commas", [2, 3, 4, 5, 40])
def test_no_row_is_dropped_for_standing_too_far_out(tmp_path, columns, commas):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n" + "," * commas + "x\n3,4\n,\n")
    with pytest.raises(
        UsageError,
        match=rf"more values than its header, which names 2 columns: 1 of them, first row 3 with {commas + 1} values",
    ):
        read(path, columns)


def test_a_row_is_empty_only_if_columns_that_are_not_read_are_empty_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    path = tmp_path / "t.csv"
    path.write_text("id,a,b\n1,x,y\n\n3,,\n ,, \n\n,,\n7,,z\n8,,\n\n")
    assert read(path, ["a", "b"]) == ([(2, ["x", "y"]), (4, ["", ""]), (8, ["", "z"]), (9, ["", ""])], 5)


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_files(tmp_path, suffix, compress):
    whole = compress("a,b\næ,1\n".encode())
    path = tmp_path / f"t.csv.{suffix}"
    path.write_bytes(whole)
    assert read(path, ["b", "a"]) == ([(2, ["1", "æ"])], 0)
    path.write_bytes(whole[:-9])
    with pytest.raises(UsageError, match=rf"t\.csv\.{suffix} cannot be read: "):
        read(path, ["a"])
    path.write_bytes(b"a,b\n1,2\n")
    with pytest.raises(UsageError, match=rf"t\.csv\.{suffix} cannot be read: "):
        read(path, ["a"])


def test_the_row_of_an_open_quotation_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    path = tmp_path / "t.csv"
    path.write_text('a,b\n"two\nlines",1\n\nx,1\ny,1\nz,1\n"w,1\nv,1\n')
    with pytest.raises(UsageError, match="opened in row 7 and never closed"):
        read(path, ["a"])


def test_an_open_quotation_mark_that_ends_where_another_begins(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\nx,1\n"y,2\nz,3\n"v, w",4\n')
    with pytest.raises(UsageError, match=r"row 3 with 3 values \(.*A value in it is of 3 lines: perhaps a quotation"):
        read(path, ["a"])


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("", "Row 1 of .* is empty: the names of the columns must stand there"),
        (" ,", "Row 1 of .* is empty: the names of the columns must stand there"),
        ("sep=,", "Row 1 of .* is 'sep=,', a note to Excel and no column name: delete this row"),
    ],
)
def test_a_first_row_that_is_no_header(tmp_path, first, message):
    path = tmp_path / "t.csv"
    path.write_text(first + "\na,b\nx,1\n")
    with pytest.raises(UsageError, match=message):
        read(path, ["a"])


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_value_may_be_of_any_length(tmp_path, at):
    rows = [["a", "b"], ["1", "2"], ["", ""], ["3", "4"]]
    rows[at][0] = "x" * 200_000
    path = tmp_path / "t.csv"
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    filled = [(number, row) for number, row in enumerate(rows[1:], start=2) if any(row)]
    assert read(path, ["a", "b"]) == (filled, 3 - len(filled))
    assert peek(path) == (["a", "b"], True)
    path.write_text("x" * 200_000 + ",b\n1,2\n")
    assert column_names(path) == ["x" * 200_000, "b"]
    assert read(path, ["b"]) == ([(2, ["2"])], 0)


def test_a_header_of_several_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeff"the\ntext",b\nx,1\n', encoding="utf-8")
    assert column_names(path) == ["the\ntext", "b"]
    assert read(path, ["b", "the\ntext"]) == ([(2, ["1", "x"])], 0)


def test_columns_of_the_same_name(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,b\n1,2,3\n")
    assert read(path, ["a"]) == ([(2, ["1"])], 0)
    with pytest.raises(UsageError, match=r"2 columns called 'b': rename all but one"):
        read(path, ["a", "b"])


def test_parquet(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    path = tmp_path / "t.parquet"
    dictionary = pa.DictionaryArray.from_arrays(pa.array([2, None, 0]), pa.array(["c", "unused", "a"]))
    columns = {
        "float": [61110.0, None, 0.5],
        "text": ["nan", None, ""],
        "kind": dictionary,
        "decimal": [Decimal("1.0"), Decimal("1.5"), None],
        "nothing": pa.nulls(3),
        "list": [[1], [1], None],
    }
    parquet.write_table(pa.table(columns), path)
    names = ["float", "text", "kind", "decimal", "nothing"]
    rows = [["61110", "nan", "a", "1", ""], ["", "", "", "1.5", ""], ["0.5", "", "c", "", ""]]
    assert read(path, names) == (list(enumerate(rows, start=2)), 0)
    kept = [row[0] for _, row in read(path, ["float"], decimals=True)[0]]
    assert kept == ["61110.0", "", "0.5"]
    assert peek(path) == (list(columns), True)
    with pytest.raises(UsageError, match=r"t\.parquet holds several values in a cell of column 'list'"):
        read(path, ["list"])

    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    with pytest.raises(UsageError, match=r"t\.parquet cannot be read as Parquet"):
        read(path, names)


def test_types_of_a_parquet_file_that_are_seldom_met(tmp_path):
    pa = pytest.importorskip("pyarrow", minversion="21")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    few = [*map(str, range(128))]
    columns = {
        "single": pa.array([7.1, 61110.0, *[None] * 126], pa.float32()),
        # As many values as eight bits with a sign can number, and no number left for the null.
        "kind": pa.DictionaryArray.from_arrays(pa.array([*range(127), None], pa.int8()), pa.array(few)),
        "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['"a"', None] * 64)),
        "text": pa.array(["a", None] * 64, pa.string_view()),
        "bytes": pa.array([b"a", None] * 64, pa.binary_view()),
    }
    parquet.write_table(pa.table(columns), path)
    (chunk,) = read_chunks(path, list(columns))
    wanted = {
        "single": ["7.1", "61110", *[""] * 126],
        "kind": [*few[:-1], ""],
        "json": ['"a"', ""] * 64,
        "text": ["a", ""] * 64,
        "bytes": ["a", ""] * 64,
    }
    for column, texts in wanted.items():
        distinct, numbers = chunk[column].distinct()
        assert [distinct[i] for i in numbers] == chunk[column].tolist() == texts
        assert chunk.at(np.array([1, 0]))[column].tolist() == [texts[1], texts[0]]


@pytest.mark.parametrize("dtype", ["float32", "Float32", "float[pyarrow]"])
def test_floats_of_32_bits_in_a_frame(dtype):
    pytest.importorskip("pyarrow")
    column = pd.Series([7.1, None, 61110.0]).astype(dtype)
    assert [as_text(value, decimals=False) for value in cells_of(column)] == ["7.1", "", "61110"]


def test_bytes_of_a_parquet_file_are_text(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": [b"s\xc3\xb8mand", b"x"]}), path)
    assert read(path, ["a"]) == ([(2, ["sømand"]), (3, ["x"])], 0)
    parquet.write_table(pa.table({"a": [b"s\xf8mand"]}), path)
    with pytest.raises(
        UsageError, match=r"t\.parquet, column 'a', row 2: the bytes b's\\xf8mand' are no text in UTF-8"
    ):
        read(path, ["a"])


def strings(pa, *values):
    """Cells that call themselves text, whatever their bytes."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


@pytest.mark.parametrize("ask", ["tolist", "distinct"])
@pytest.mark.parametrize("kind", ["text", "dictionary", "bytes"])
def test_damaged_text_of_a_parquet_file_is_named_with_row_and_column(tmp_path, monkeypatch, ask, kind):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(tables, "CHUNK_ROWS", 2)
    values = b"x", b"y", b"z", b"s\xf8mand"
    cells = {"text": strings, "dictionary": lambda pa, *v: strings(pa, *v).dictionary_encode()}.get(kind)
    cells = pa.array(values, pa.binary()) if cells is None else cells(pa, *values)
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"a": [1, 2, 3, 4], "b": cells}), path)
    assert read(path, ["a"])[0]
    first, second = (chunk["b"] for chunk in read_chunks(path, ["b"]))
    assert getattr(first, ask)()
    with pytest.raises(UsageError, match=r"t\.parquet, column 'b', row 5: the bytes b's\\xf8mand' are no text in UTF"):
        getattr(second, ask)()


def test_damaged_names_of_columns_of_a_parquet_file(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"name": ["x"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xe6me"))
    for ask in (column_names, peek, lambda path: read(path, ["name"])):
        with pytest.raises(UsageError, match=r"t\.parquet is damaged: the name of a column is b'n\\xe6me'"):
            ask(path)


def test_text_of_a_cell():
    values = [None, pd.NA, pd.NaT, float("nan"), Decimal("NaN"), "nan", 7, True, float("inf"), -0.5, 1e3]
    assert [*map(as_text, values)] == ["", "", "", "", "", "nan", "7", "True", "inf", "-0.5", "1000.0"]
    # What pandas makes of the lists of a Parquet file.
    assert as_text(np.array([1, 2])) == "[1 2]"
    assert as_text(1e3, decimals=False) == "1000"


def test_progress_is_shown_where_it_is_asked_for(tmp_path, capsys, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n")
    read(path, ["a"])
    assert capsys.readouterr().err == ""
    read(path, ["a"], progress=True)
    assert "Reading t.csv: 100%" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(tables, "PROGRESS_BYTES", 1)
    read(path, ["a"])
    assert "Reading t.csv" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    read(path, ["a"])
    assert capsys.readouterr().err == ""
