from __future__ import annotations

import pytest

from histocc.errors import UsageError
from histocc.preparation import read_key, write_key


def test_round_trip_keeps_every_code(tmp_path):
    codes = ["NA", "nan", "None", "null", "?", "", "01110", "1110", "1110.0", "1,13,0,0", 'a"b', " ", "TRUE", "1e5"]
    key = {code: i for i, code in enumerate(codes)}
    write_key(key, tmp_path / "key.csv")
    assert read_key(tmp_path / "key.csv") == key


def test_layout(tmp_path):
    write_key({"01110": 0, "1,2": 1}, tmp_path / "key.csv")
    assert (tmp_path / "key.csv").read_bytes() == b'system_code,code\n01110,0\n"1,2",1\n'


def test_order_of_the_file_and_extra_columns(tmp_path):
    (tmp_path / "key.csv").write_text("\ufeffcode,system_code,label\n1,B,baker\n\n0,A,actor\n", "utf-8")
    assert list(read_key(tmp_path / "key.csv").items()) == [("B", 1), ("A", 0)]


def test_a_code_column_by_another_name(tmp_path):
    (tmp_path / "key.csv").write_text("hisco,code\n01110,0\n")
    assert read_key(tmp_path / "key.csv") == {"01110": 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "needs the columns system_code, code"),
        ("system_code,klass\nA,0\n", "needs the columns system_code, code"),
        ("system_code,code\nA,0\nA,1\n", "Row 3 .* the code 'A' occurs twice"),
        ("system_code,code\nA,0\nB,0\n", "Row 3 .* the class 0 belongs to both 'A' and 'B'"),
        ("system_code,code\nA,0.0\n", "Row 2 .* the class index '0.0' is not a whole number"),
        ("system_code,code\nA,0\nB\n", "Row 3 .* has 1 values, its header 2"),
        ("system_code,code\nA,0\nB,2\n", "the class 1 is missing, and 'B' has the class 2: number them without gaps"),
        ("system_code,code\n", "holds no codes"),
    ],
)
def test_damaged_keys(tmp_path, content, message):
    (tmp_path / "key.csv").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_key(tmp_path / "key.csv")


def test_no_key(tmp_path):
    with pytest.raises(UsageError, match=r"There is no key file .*key\.csv"):
        read_key(tmp_path / "key.csv")


def test_key_in_another_encoding(tmp_path):
    (tmp_path / "key.csv").write_bytes("system_code,code\nÆ,0\n".encode("latin-1"))
    with pytest.raises(UsageError, match="Cannot read the key"):
        read_key(tmp_path / "key.csv")
