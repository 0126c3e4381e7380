import pandas as pd
import pytest

from histocc import OccDatasetMixerInMemMultipleFiles
from histocc.errors import UsageError
from histocc.formatter import hisco_blocky5, occ1950_blocky2
from histocc.utils import data_conversion
from histocc.utils.data_conversion import (
    convert_csv_to_parquet,
    convert_directory_to_parquet,
    get_hisco_converters,
    get_hisco_dtype_overrides,
    get_occ1950_converters,
    get_occ1950_dtype_overrides,
)

pytest.importorskip("pyarrow")


def rows(path, formatter, target_cols):
    classes = 1919 if target_cols == "hisco" else 1000
    dataset = OccDatasetMixerInMemMultipleFiles(
        [path], formatter, None, 64, classes, training=False, target_cols=target_cols
    )
    return dataset.frame


@pytest.mark.parametrize("types", [{}, {"dtype_overrides": get_hisco_dtype_overrides()}], ids=["text", "numbers"])
def test_the_data_set_reads_the_same_rows(golden, tmp_path, types):
    source = golden / "dataset_rows.csv"
    written = convert_csv_to_parquet(source, tmp_path / "rows.parquet", **types)
    assert written == tmp_path / "rows.parquet"
    pd.testing.assert_frame_equal(rows(written, hisco_blocky5(), "hisco"), rows(source, hisco_blocky5(), "hisco"))
    kind = pd.read_parquet(written)["code1"].dtype
    assert (kind == "Int64") == bool(types)


def test_leading_zeros_stay(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,OCC1950_1,OCC1950_2\nNA,en,043,\nb,en,720,043\n", encoding="utf-8")
    for options in (
        {"dtype_overrides": get_occ1950_dtype_overrides()},
        {"converters": get_occ1950_converters()},
    ):
        written = convert_csv_to_parquet(csv_path=path, **options)
        assert written == tmp_path / "t.parquet"
        pd.testing.assert_frame_equal(
            rows(written, occ1950_blocky2(), "occ1950"), rows(path, occ1950_blocky2(), "occ1950")
        )


def test_converters_win_and_types_are_kept(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("occ1,n,x\nSmith,5.0,1\nFarmer,,2\n", encoding="utf-8")
    convert_csv_to_parquet(path, None, {"n": "Int64", "x": "float32", "absent": "int64"}, {"occ1": str.upper, "x": len})
    table = pd.read_parquet(tmp_path / "t.parquet")
    assert table["occ1"].tolist() == ["SMITH", "FARMER"]
    assert table["n"].tolist() == [5, pd.NA]
    assert table["x"].tolist() == [1, 1]
    assert get_hisco_converters()["occ1"]("NA") == "NA"


def test_what_cannot_be_converted_is_said(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("occ1,n\nSmith,five\n", encoding="utf-8")
    (tmp_path / "t.parquet").write_text("kept")
    with pytest.raises(UsageError, match="column 'n': a value does not fit its type"):
        convert_csv_to_parquet(path, dtype_overrides={"n": "int64"})
    assert (tmp_path / "t.parquet").read_text() == "kept"
    with pytest.raises(UsageError, match="There is no file"):
        convert_csv_to_parquet(tmp_path / "absent.csv")
    monkeypatch.setattr(data_conversion, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs pyarrow"):
        convert_csv_to_parquet(path)


def test_a_folder(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(f"occ1\n{name}\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("occ1\nc\n")
    written = convert_directory_to_parquet(tmp_path, tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in written] == ["out/a.parquet", "out/b.parquet"]
    assert pd.read_parquet(written[0])["occ1"].tolist() == ["a"]
    assert convert_directory_to_parquet(csv_dir=tmp_path, pattern="a*.csv") == [tmp_path / "a.parquet"]
    (tmp_path / "b.csv").write_text("x;y\n1;2\n")
    (tmp_path / "a.csv").write_bytes(b"occ1\n\xe6\n")
    with pytest.raises(UsageError, match=r"(?s)2 problems.*a\.csv is not in UTF-8.*b\.csv are separated by semicolons"):
        convert_directory_to_parquet(tmp_path)
    with pytest.raises(UsageError, match=r"has no files '\*\.tsv' to convert"):
        convert_directory_to_parquet(tmp_path, pattern="*.tsv")
