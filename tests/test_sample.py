"""The sample of coded descriptions that ships with the package."""

import csv
import unicodedata

import pytest

from histocc.datasets import DATA_FOLDER, hisco_codes, raw_sample_path, sample_paths, two_codes_path
from histocc.formatter import hisco_blocky5

LANGUAGES = {"en", "da", "se", "nl", "de", "fr", "no", "it", "es", "ca", "pt", "is"}
CODE_COLUMNS = [f"code{i}" for i in range(1, 6)]
RAW_CODE_COLUMNS = ["hisco_1", "hisco_2"]


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def codes_of(row, columns):
    return [row[column] for column in columns if row[column]]


def normalised(row):
    return row["occ1"].strip().lower()


@pytest.fixture(scope="module")
def train():
    return read(sample_paths()[0])


@pytest.fixture(scope="module")
def val():
    return read(sample_paths()[1])


@pytest.fixture(scope="module")
def two_codes():
    return read(two_codes_path())


@pytest.fixture(scope="module")
def raw():
    return read(raw_sample_path())


@pytest.mark.parametrize("name", ["sample_train.csv", "sample_val.csv", "sample_two_codes.csv", "sample_raw.csv"])
def test_files_are_plain_utf8(name):
    text = (DATA_FOLDER / name).read_bytes().decode("utf-8")
    assert "\r" not in text
    assert text.endswith("\n")
    assert not text.startswith("\ufeff")
    assert text == unicodedata.normalize("NFC", text)


def test_columns(train, val, two_codes, raw):
    for rows in (train, val, two_codes):
        assert list(rows[0]) == ["occ1", "lang", *CODE_COLUMNS]
    assert list(raw[0]) == ["occ1", "lang", *RAW_CODE_COLUMNS]
    for row in train + val + two_codes + raw:
        assert None not in row
        assert None not in row.values()


def test_size_and_languages(train, val, two_codes, raw):
    assert 1400 <= len(train) + len(val) <= 1600
    assert 180 <= len(val) <= 230
    assert 900 <= len(two_codes) <= 1100
    assert 1400 <= len(raw) <= 1600
    for rows in (train, val, two_codes, raw):
        assert {row["lang"] for row in rows} == LANGUAGES


def test_descriptions_are_short_clean_and_distinct(train, val, two_codes, raw):
    for rows in (train + val + two_codes, raw):
        assert len({(row["occ1"], row["lang"]) for row in rows}) == len(rows)
    for row in train + val + two_codes + raw:
        assert 1 < len(row["occ1"]) <= 40
        assert row["occ1"] == " ".join(row["occ1"].split())


def test_codes_are_classes_without_gaps(train, val, two_codes):
    """Indices of the key, the missing ones last, no code twice in a row."""
    formatter = hisco_blocky5()
    for row in train + val + two_codes:
        codes = codes_of(row, CODE_COLUMNS)
        assert codes
        assert codes == [row[column] for column in CODE_COLUMNS][: len(codes)]
        assert len(set(codes)) == len(codes)
        assert all(0 <= int(code) < 1919 and str(int(code)) == code for code in codes)
        assert formatter.transform_label("&".join(formatter.code_from_class(int(code)) for code in codes)) is not None


def test_validation_is_unseen_but_known(train, val, two_codes):
    """No validation text stands in the training rows, however it is capitalised; every code does."""
    known = {(row["lang"], normalised(row)) for row in train + two_codes}
    assert not [row for row in val if (row["lang"], normalised(row)) in known]
    seen = {code for row in train for code in codes_of(row, CODE_COLUMNS)}
    assert {code for row in val for code in codes_of(row, CODE_COLUMNS)} <= seen
    assert 60 <= len(seen) <= 90


def test_a_text_means_the_same_wherever_it_stands(train, val, raw):
    key = hisco_codes()
    meaning = {}
    for row in train + val:
        meaning[row["lang"], row["occ1"]] = [key[int(code)] for code in codes_of(row, CODE_COLUMNS)]
    shared = [row for row in raw if (row["lang"], row["occ1"]) in meaning]
    assert shared
    for row in shared:
        assert codes_of(row, RAW_CODE_COLUMNS) == meaning[row["lang"], row["occ1"]]


def test_two_titles_are_joined_of_which_each_is_known(train, val, two_codes):
    """Both stand in the training part, with the same codes; no pair stands in validation, in neither order."""
    joining = {
        "en": "and",
        "de": "und",
        "fr": "et",
        "nl": "en",
        "se": "och",
        "es": "y",
        "ca": "i",
        "it": "e",
        "pt": "e",
    }
    titles, asked = set(), set()
    alone = {(row["lang"], row["occ1"]): row["code1"] for row in train if not row["code2"]}
    for row in train:
        titles |= {(row["lang"], title) for title in row["occ1"].split(f" {joining.get(row['lang'], 'og')} ")}
    for row in val:
        asked.add((row["lang"], frozenset(row["occ1"].split(f" {joining.get(row['lang'], 'og')} "))))
    for row in two_codes:
        pair = row["occ1"].split(f" {joining.get(row['lang'], 'og')} ")
        assert len(pair) == len(codes_of(row, CODE_COLUMNS)) == 2
        assert {(row["lang"], title) for title in pair} <= titles
        for title, code in zip(pair, codes_of(row, CODE_COLUMNS)):
            assert alone.get((row["lang"], title), code) == code
        assert (row["lang"], frozenset(pair)) not in asked


def test_share_with_two_codes(train, val, raw):
    for rows in (train, val):
        two = sum(bool(row["code2"]) for row in rows)
        assert 0.09 <= two / len(rows) <= 0.15
        assert not any(row["code3"] for row in rows)
    assert 0.4 <= sum(bool(row["hisco_2"]) for row in raw) / len(raw) <= 0.5


def test_raw_codes_are_five_digit_text(raw):
    key = set(hisco_codes())
    for row in raw:
        assert row["hisco_1"]
        for code in codes_of(row, RAW_CODE_COLUMNS):
            assert len(code) == 5
            assert code.isdigit()
            assert code in key
    assert any(row["hisco_1"].startswith("0") for row in raw)


def test_raw_table_prepares_without_flags(tmp_path):
    from histocc.formatter import construct_general_purpose_formatter
    from histocc.preparation import prepare_finetuning_data

    key = prepare_finetuning_data(
        dataset=DATA_FOLDER / "sample_raw.csv",
        input_col="occ1",
        formatter=construct_general_purpose_formatter(block_size=5, target_cols=RAW_CODE_COLUMNS),
        save_path=tmp_path,
        share_val=0.1,
        language_col="lang",
    )
    assert 60 <= len(key) <= 90
    rows = len(read(DATA_FOLDER / "sample_raw.csv"))
    assert len(read(tmp_path / "data_train.csv")) + len(read(tmp_path / "data_val.csv")) == rows


def test_class_indices_agree_with_known_titles(train):
    """A handful of well-known codes, against slips in the numbering of classes."""
    expected = {
        ("en", "blacksmith"): "83110",
        ("da", "husmand"): "61115",
        ("se", "torpare"): "61115",
        ("nl", "dagloner"): "99920",
        ("de", "Apotheker"): "06710",
        ("fr", "boulanger"): "77610",
        ("no", "fisker"): "64100",
        ("it", "muratore"): "95120",
        ("es", "zapatero"): "80110",
        ("ca", "fuster"): "95410",
        ("pt", "soldado"): "58340",
        ("is", "prestur"): "14120",
    }
    key = hisco_codes()
    found = {(row["lang"], row["occ1"]): key[int(row["code1"])] for row in train if not row["code2"]}
    assert {title: found.get(title) for title in expected} == expected
