"""How often each code occurs, as `codes.csv` says."""

from __future__ import annotations

from collections import Counter

from histocc.formatter import construct_general_purpose_formatter
from histocc.preparation import prepare

HEADER = ["occ1", "c1", "c2", "l"]


def test_every_code_with_rows_share_languages_and_examples(write_csv, read_csv, tmp_path):
    rows = [
        *([f"farmer {i % 4}", "61110", "61110" if i % 2 else "", ["da", "en", "da"][i % 3]] for i in range(7)),
        ["baker, smith", "77610", "83110", "en"],
        ["baker", "77610", "", "ge"],
        ["nobody", "", "", "en"],
    ]
    formatter = construct_general_purpose_formatter(5, ["c1", "c2"])
    (tmp_path / "all.txt").write_text("00001\n61110\n")
    options = {"language_col": "l", "all_codes_file": tmp_path / "all.txt"}
    _, report = prepare(write_csv([HEADER, *rows]), "occ1", formatter, tmp_path / "out", 0.2, **options)
    assert read_csv(tmp_path / "out" / "codes.csv") == [
        ["code", "rows", "share", "languages", "examples"],
        ["61110", "7", "0.700000", "da 5, en 2", "farmer 0; farmer 1; farmer 2"],
        ["77610", "2", "0.200000", "en 1, ge 1", "baker, smith; baker"],
        ["83110", "1", "0.100000", "en 1", "baker, smith"],
        ["?", "1", "0.100000", "en 1", "nobody"],
        ["00001", "0", "0.000000", "", ""],
    ]
    assert "Warning: 3 of 4 codes have fewer than five rows and will hardly be learnt; 2 of them a" in report.summary()


def test_counts_agree_with_the_prepared_files(golden, read_csv, tmp_path):
    formatter = construct_general_purpose_formatter(5, ["hisco_1", "hisco_2"])
    table = golden / "finetune_prepare" / "two_cols_missing" / "input.csv"
    prepare(table, "occ1", formatter, tmp_path / "out", 0.1, language_col="lang_x")
    rows = [row for name in ("data_train.csv", "data_val.csv") for row in read_csv(tmp_path / "out" / name)[1:]]
    counted = Counter(code for _, *codes, _ in rows for code in set(codes) - {""})
    listed = read_csv(tmp_path / "out" / "codes.csv")[1:]
    assert {code: int(n) for code, n, *_ in listed} == counted
    assert [int(n) for _, n, *_ in listed] == sorted(counted.values(), reverse=True)


def test_codes_that_are_frequent_enough(write_csv, tmp_path, formatter):
    path = write_csv([["occ1", "hisco_1"], *([f"x{i}", "61110"] for i in range(5))])
    _, report = prepare(path, "occ1", formatter, tmp_path / "out", 0.2)
    assert "fewer than five" not in report.summary()
