import re
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.dataloader import check_files
from histocc.dataloader.codes import CodeTable
from histocc.dataloader.encoding import texts_of
from histocc.dataloader.rows import BadValueError, TextColumn, read_chunks, read_table
from histocc.dataloader.words import Words, read_word_frequencies
from histocc.errors import UsageError
from histocc.formatter import construct_general_purpose_formatter, hisco_blocky5, occ1950_blocky2

COLUMNS = [f"code{i}" for i in range(1, 6)]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ODD_SPELLINGS = [
    "nan", "NA", "null", "None", "N/A", "42", "007", "1e5", "True", "", " ", "🙂 skomager", "Åse's \"lille\" butik",
    "a,b", "line\nbreak", "tab\there", "x" * 500, "e\u0301", "\u00a0mellem\u2003rum ",
]  # fmt: skip


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def read_hisco(paths, **options):
    return read_table(paths, COLUMNS, CodeTable(hisco_blocky5(), 1919).lookup, **options)


@given(st.lists(TEXT), st.data())
def test_a_text_column_gives_back_its_strings(strings, data):
    column = TextColumn.from_strings(strings)
    assert len(column) == len(strings)
    assert column.to_list() == strings
    rows = np.array(data.draw(st.lists(st.integers(0, len(strings) - 1)) if strings else st.just([])), dtype=np.int64)
    assert texts_of(*column.take(rows)) == [strings[row] for row in rows]


def test_a_text_column_has_no_rows_beyond_its_end():
    column = TextColumn.from_strings(["a", "b"])
    assert column[-1] == "b"
    with pytest.raises(IndexError, match="row 2 of 2"):
        column[2]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \t\n\x85\u00a0\u2003\u3000æ🙂"), max_size=8), max_size=8), st.data())
def test_words_are_the_distinct_ones_of_split(strings, data):
    column = TextColumn.from_strings(strings)
    chosen = sorted(data.draw(st.sets(st.integers(0, len(strings) - 1)))) if strings else []
    for rows in (None, np.array(chosen, dtype=np.int64)):
        words = Words.from_column(column, rows)
        texts = strings if rows is None else [strings[row] for row in chosen]
        expected = list(dict.fromkeys(word for text in texts for word in text.split()))
        assert [words[i] for i in range(len(words))] == expected
        assert texts_of(*words.take(np.arange(len(words)))) == expected


def test_words_of_several_blocks(monkeypatch):
    monkeypatch.setattr("histocc.dataloader.words._BLOCK_ROWS", 2)
    words = Words.from_column(TextColumn.from_strings(["a b", "", "b c", "d a", "æ", "c e"]))
    assert [words[i] for i in range(len(words))] == ["a", "b", "c", "d", "æ", "e"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"word": ["a"]}, "no column 'freq'"),
        ({"word": ["a", "b"], "freq": [1, "many"]}, "row 3 .*'many'"),
        ({"word": ["a"], "freq": [-1]}, "no number >= 0"),
        ({"word": ["a"], "freq": [0]}, "sum to 0"),
    ],
)
def test_bad_word_frequencies_are_refused(table, message):
    with pytest.raises(UsageError, match=message):
        Words.from_frequencies(pd.DataFrame(table))


def test_word_frequencies_are_read_as_other_tables(tmp_path):
    path = write(tmp_path / "w.csv", "rank,word,freq,note\n1,nan,2,9,\n\n2,NA,many,9,\n")
    table = read_word_frequencies(path)
    assert table.to_dict("list") == {"word": ["nan", "NA"], "freq": ["2", "many"]}
    with pytest.raises(UsageError, match=r"row 4 .*'many'"):
        Words.from_frequencies(table)
    with pytest.raises(UsageError, match=r"w\.csv has no column 'freq'.* \(--fn-word-freq\)"):
        read_word_frequencies(write(path, "word\na\n"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_text_is_text_in_every_spelling(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    frame = pd.DataFrame({"occ1": ODD_SPELLINGS, "lang": (ODD_SPELLINGS * 2)[5 : 5 + len(ODD_SPELLINGS)], "code1": 5})
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    table = read_table(path, ["code1"], CodeTable(hisco_blocky5(), 1919).lookup)
    assert table.text.to_list() == frame["occ1"].tolist()
    languages = [text if text.strip() else "unk" for text in frame["lang"]]
    assert [table.languages[i] for i in table.language_index] == languages


def test_numbers_in_parquet_become_text_without_decimals(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    frame = pd.DataFrame({"i": [1, 2, 3], "f": [61110.0, None, 0.5], "s": ["x", None, "1.0"], "c": ["a", "b", "a"]})
    frame.astype({"c": "category"}).to_parquet(path)
    (chunk,) = read_chunks(path, ["i", "f", "s", "c"])
    assert {column: chunk[column].tolist() for column in "ifsc"} == {
        "i": ["1", "2", "3"],
        "f": ["61110", "", "0.5"],
        "s": ["x", "", "1.0"],
        "c": ["a", "b", "a"],
    }


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = write(tmp_path / "t.parquet", "")
    with pytest.raises(UsageError, match=r"pip install 'histocc\[parquet\]'"):
        read_hisco(path)


def test_files_are_read_in_chunks_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr("histocc.files.tables.CHUNK_ROWS", 2)
    header = "lang,junk,code2,code1,code3,code4,code5,occ1\n"
    first = write(tmp_path / "a.csv", header + "en,1,,7,,,,a\nda,,,8,,,,b\n\nen,,9.0,7.0,,,,c\n")
    second = write(tmp_path / "b.csv", "\ufeff" + header + "se,,3,,,,,d\n".replace("3,,", "3,7,"))
    table = read_hisco([first, second])
    assert table.text.to_list() == ["a", "b", "c", "d"]
    assert table.languages == ["en", "da", "se"]
    assert table.language_index.tolist() == [0, 1, 0, 2]
    # Numbered in order of appearance: within a chunk column by column.
    assert table.labels.tolist() == [[0, *[-1] * 4], [1, *[-1] * 4], [0, 2, *[-1] * 3], [0, 3, *[-1] * 3]]
    assert table.language_index.dtype == np.int8


def test_the_first_missing_code_ends_the_row_unless_told_otherwise(tmp_path):
    path = write(tmp_path / "t.csv", "occ1,lang,code1,code2,code3,code4,code5\na,en,5, ,6,,\nb,en,NA,nan,6,,\n")
    with pytest.raises(UsageError, match=r"first code is missing(.|\n)*row 3, column 'code1': ''"):
        read_hisco(path)
    table = read_hisco(path, require_code=False)
    assert (table.labels >= 0).tolist() == [[True, False, False, False, False], [False] * 5]
    assert table.notes() == ["codes behind a row's first empty code column, which are not read: 2"]
    table = read_hisco(path, require_code=False, gap_ends_row=False)
    assert (table.labels >= 0).tolist() == [[True, False, True, False, False], [False, False, True, False, False]]
    assert table.notes() == []


def test_rows_without_a_description_are_counted(tmp_path):
    path = write(tmp_path / "t.csv", "occ1,lang,code1,code2,code3,code4,code5\n,en,5,,,,\n  ,en,5,,,,\nx,en,5,,,,\n")
    assert read_hisco(path).notes() == ["rows without a description: 2"]


def test_cells_are_named_in_the_order_of_the_file(tmp_path):
    values = ["9000", "8000", "9000", "7000", "9000"]
    path = write(
        tmp_path / "t.csv", "occ1,lang,code1,code2,code3,code4,code5\n" + "".join(f"x,en,{v},,,,\n" for v in values)
    )
    with pytest.raises(UsageError) as caught:
        read_hisco(path)
    assert re.findall(r"row (\d), column 'code1': '(\d+)'", str(caught.value)) == [
        (str(i), value) for i, value in enumerate(values, start=2)
    ]


def test_a_column_of_wrong_values_costs_no_message_for_each(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("histocc.dataloader.rows.shown", lambda value: made.append(value) or repr(value))
    header = "occ1,lang,code1,code2,code3,code4,code5\n"
    path = write(tmp_path / "t.csv", header + "".join(f"x,en,word {i},,,,\n" for i in range(1000)))
    with pytest.raises(
        UsageError, match=r"1,000 cells: no class index(.|\n)*row 11, column 'code1': 'word 9'\n.*990 more"
    ):
        read_hisco(path)
    assert made == [f"word {i}" for i in range(10)]


def test_all_that_is_wrong_with_codes_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("histocc.files.tables.CHUNK_ROWS", 3)
    good = "occ1,lang,code1,code2,code3,code4,code5\n"
    rows = ["a,en,5,,,,", "b,en,1919,,,,", "c,en,clerk,-1,,,", "d,en,5,2.5,,,", "e,en,,,,,", "f,en,inf,,,,"]
    first = write(tmp_path / "a.csv", good + "\n".join(rows) + "\n")
    second = write(tmp_path / "b.csv", good + "x,en,99999,,,,\n" * 12)
    with pytest.raises(UsageError) as caught:
        read_hisco([first, second])
    message = str(caught.value)
    assert (
        "14 cells: a class outside 0..1918; where these are the codes themselves, finetune.py takes the tab" in message
    )
    assert f"{first}, row 3, column 'code1': '1919'" in message
    assert f"{first}, row 4, column 'code2': '-1'" in message
    assert f"{second}, row 9, column 'code1': '99999'" in message
    assert f"{second}, row 10," not in message  # ten examples, then a count
    assert "... and 4 more" in message
    assert "3 cells: no class index, that is a whole number from 0 to 1918" in message
    assert f"{first}, row 5, column 'code2': '2.5'" in message
    assert f"{first}, row 7, column 'code1': 'inf'" in message
    assert "1 cell: the first code is missing; give the row one, or leave it out" in message
    assert f"{first}, row 6, column 'code1': ''" in message


def test_codes_that_key_or_formatter_lack_are_named(tmp_path):
    path = write(tmp_path / "t.csv", "occ1,lang,a,b\nx,en,01,02\ny,en,77,\nz,en,toolong,\nw,en,01,ø\n")
    formatter = construct_general_purpose_formatter(3, ["a", "b"])
    codes = CodeTable(formatter, 4, {"01": 0, "02": 1, "toolong": 2, "ø": 3})
    with pytest.raises(UsageError) as caught:
        read_table(path, ["a", "b"], codes.lookup)
    message = str(caught.value)
    assert "not in the key; correct it, or add it to the key" in message
    assert f"{path}, row 3, column 'a': '77'" in message
    assert "2 cells: a code that the formatter cannot write" in message
    assert f"{path}, row 4, column 'a': 'toolong' (" in message
    assert f"{path}, row 5, column 'b': 'ø' (" in message
    path = write(tmp_path / "t.csv", "occ1,lang,a\nx,en,5\n")
    with pytest.raises(UsageError, match="not in the key; class indices need map_code_label=None"):
        read_table(path, ["a"], CodeTable(hisco_blocky5(), 1919, {"01110": 3}).lookup)
    path = write(tmp_path / "t.csv", "occ1,lang,b\nx,en,A7\n")
    with pytest.raises(UsageError, match="no number, and there is no key"):
        read_table(path, ["b"], CodeTable(formatter, 100).lookup, require_code=False)


def test_a_key_that_does_not_fit_the_number_of_classes_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", "occ1,lang,a\nx,en,01\n")
    codes = CodeTable(construct_general_purpose_formatter(3, ["a"]), 4, {"01": 4})
    with pytest.raises(UsageError, match=r"a class outside 0\.\.3"):
        read_table(path, ["a"], codes.lookup)


def test_each_distinct_code_is_tokenised_once():
    formatter = occ1950_blocky2()
    calls = []

    class Counting:
        block_size = formatter.block_size

        @staticmethod
        def encode_block(code):
            calls.append(code)
            return formatter.encode_block(code)

    codes = CodeTable(Counting(), 1000)
    assert [codes.lookup(cell) for cell in ("043", "700", "043", "", "700")] == [0, 1, 0, -1, 1]
    assert calls == ["043", "700"]
    assert codes.classes().tolist() == [43, 700, -1]
    assert codes.tokens().tolist() == [[5, 9, 8], [12, 5, 5], [1, 1, 1]]


def test_spellings_of_a_class_index_are_one_code():
    codes = CodeTable(hisco_blocky5(), 1919)
    assert {codes.lookup(cell) for cell in ("934", "934.0", " 934")} == {0}
    assert codes.lookup("nan") == codes.lookup("NA") == -1
    assert codes.codes == [hisco_blocky5().code_from_class(934)]


@pytest.mark.parametrize("cell", ["1_0", "１２", "1e2", "0x1", "5.5", "inf", "9" * 5000, "1 2", "٣"])
def test_only_digits_of_ascii_make_a_class_index(cell):
    with pytest.raises(BadValueError) as caught:
        CodeTable(hisco_blocky5(), 1919).lookup(cell)
    assert caught.value.kind == "no class index, that is a whole number from 0 to 1918"
    with pytest.raises(BadValueError):
        CodeTable(occ1950_blocky2(), 1000, tokenise=False).lookup(cell)


def test_files_are_checked_all_at_once(tmp_path):
    fine = write(tmp_path / "fine.csv", "occ1,lang,code1\na,en,1\n")
    assert not check_files([fine], ["occ1", "lang", "code1"])

    lacking = write(tmp_path / "lacking.csv", "Occ,code1\na,1\n")
    semicolons = write(tmp_path / "semicolons.csv", "occ1;lang;code1\na;en;1\n")
    empty = write(tmp_path / "empty.csv", "occ1,lang,code1\n")
    nothing = write(tmp_path / "nothing.csv", "")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("occ1,lang,code1\nvæver,da,1\n".encode("latin-1"))
    bad_parquet = write(tmp_path / "bad.parquet", "no")
    problems = check_files(
        [fine, tmp_path / "absent.csv", tmp_path, lacking, semicolons, empty, nothing, latin],
        ["occ1", "lang"],
        flag="--train-data",
    )
    with pytest.raises(UsageError) as caught:
        problems.raise_if_any()
    message = str(caught.value)
    assert "7 problems" in message
    assert f"There is no file {tmp_path / 'absent.csv'} (see --train-data)" in message
    assert f"{tmp_path} is a folder" in message
    assert f"{lacking} has no columns 'occ1' (did you mean 'Occ'?), 'lang'; its columns are: 'Occ', 'code1'" in message
    assert f"The values in {semicolons} are separated by semicolons (its first row is 'occ1;lang;code1')" in message
    assert f"{empty} has no rows" in message
    assert f"{nothing} is empty" in message
    assert f"{latin} is not in UTF-8: row 2 holds 'væver' in another encoding" in message

    with pytest.raises(UsageError, match="No data file is given"):
        check_files([], ["occ1"]).raise_if_any()
    with pytest.raises(UsageError, match=rf"no file {fine},{lacking}: separate files by blanks \({fine} {lacking}\)"):
        check_files(f"{fine},{lacking}", ["occ1"]).raise_if_any()
    (message,) = check_files(f"{fine},x", ["occ1"]).messages
    assert "blanks" not in message
    pytest.importorskip("pyarrow")
    with pytest.raises(UsageError, match=r"bad\.parquet cannot be read as Parquet"):
        check_files(bad_parquet, ["occ1"]).raise_if_any()


def test_a_table_without_any_column_of_classes_is_told_once_to_be_another_scripts(tmp_path):
    raw = write(tmp_path / "raw.csv", "occ1,lang,hisco_1\na,en,61110\n")
    other = write(tmp_path / "other.csv", "text,code\na,61110\n")
    short = write(tmp_path / "short.csv", "occ1,lang,code1\na,en,1\n")
    columns = ["occ1", "lang", *(f"code{i}" for i in range(1, 6))]
    match = r"Rename columns in the table\. It looks like a table that is not prepared .*: finetune\.py takes it"
    with pytest.raises(UsageError, match=match) as caught:
        check_files([raw, other], columns).raise_if_any()
    assert str(caught.value).count("finetune.py") == 1
    with pytest.raises(UsageError, match=r"no columns 'code2'") as caught:
        check_files([short], columns).raise_if_any()
    assert "finetune.py" not in str(caught.value)


def test_a_file_that_breaks_later_on_is_named(tmp_path):
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"occ1,lang,code1,code2,code3,code4,code5\n" + b"a,en,1,,,,\n" * 5 + b"v\xe6ver,da,1,,,,\n")
    quoted = write(tmp_path / "quoted.csv", 'occ1,lang,code1,code2,code3,code4,code5\na,en,1,,,,\n"b,en,1,,,,\n')
    with pytest.raises(UsageError, match=r"latin\.csv is not in UTF-8: row 7 holds 'væver'"):
        read_hisco(latin)
    with pytest.raises(UsageError, match=r"quoted\.csv ends inside a quoted text: .* opened in row 3"):
        read_hisco(quoted)


def test_a_comma_at_the_end_of_the_lines_shifts_nothing(tmp_path):
    path = write(tmp_path / "t.csv", "occ1,lang,code1\na,en,1,\nb,en,2,\n")
    (chunk,) = read_chunks(path, ["occ1", "code1"])
    assert [chunk[column].tolist() for column in ("occ1", "code1")] == [["a", "b"], ["1", "2"]]


def test_row_numbers_are_those_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("histocc.files.tables.CHUNK_ROWS", 2)
    path = write(tmp_path / "t.csv", "occ1,lang,code1\n\na,en,5\n\n\n   \n,,\nb,en,clerk\n\n,en,\n")
    with pytest.raises(UsageError) as caught:
        read_table(path, ["code1"], CodeTable(hisco_blocky5(), 1919).lookup)
    assert "row 8, column 'code1': 'clerk'" in str(caught.value)
    assert "1 cell: the first code is missing" in str(caught.value)
    assert "row 10, column 'code1': ''" in str(caught.value)


def test_a_comma_without_quotes_is_asked_for_where_it_moves_an_empty_value_alone(tmp_path):
    path = write(tmp_path / "t.csv", "occ1,lang,code1,code2\nbaker,en,5,,\nfarmer, of land,en,5,\nsmith,en,x,\n")
    with pytest.raises(UsageError) as caught:
        read_table(path, ["code1", "code2"], CodeTable(hisco_blocky5(), 1919).lookup)
    (asked,) = (line for line in str(caught.value).splitlines() if "double quotes" in line)
    assert "row 3, column 'code1': 'en'; the row has 5 values under 4 column names: is there a comma" in asked
    # Values beyond the header that are empty do no harm by themselves.
    write(path, "occ1,lang,code1,code2\nbaker,en,5,,\nfarmer,en,5,,,,\n")
    assert len(read_table(path, ["code1", "code2"], CodeTable(hisco_blocky5(), 1919).lookup).text) == 2


def test_a_comma_without_quotes_is_an_error(tmp_path):
    path = write(tmp_path / "t.csv", "code1,lang,occ1\n5,en,baker\n5,en,farmer, retired\n")
    with pytest.raises(UsageError, match=r"t\.csv has rows with more values .* row 3 .*'5,en,farmer, retired'"):
        read_table(path, ["code1"], CodeTable(hisco_blocky5(), 1919).lookup)
