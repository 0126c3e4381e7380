"""The tables that ship with the package."""

import subprocess
import sys

import pytest

import histocc.datasets
from histocc.datasets import DATASETS, hisco_codes, sample_paths
from histocc.formatter import construct_general_purpose_formatter, hisco_blocky5

COLUMNS = ["occ1", "lang", "code1", "code2", "code3", "code4", "code5", "hisco_1"]


def test_hisco_codes_are_in_class_order():
    codes = hisco_codes()
    assert len(codes) == len(set(codes)) == 1919
    assert codes[:4] == ["-3", "-2", "-1", "01110"]
    assert codes[-1] == "99999"
    assert [int(code) for code in codes] == sorted(int(code) for code in codes)
    assert {len(code) for code in codes[3:]} == {5}


def test_keys():
    keys = DATASETS["keys"]()
    assert list(keys.columns) == ["hisco", "code"]
    assert keys["code"].tolist() == list(range(1919))
    assert keys["hisco"].tolist() == [int(code) for code in hisco_codes()]


def test_callers_may_change_what_they_get():
    hisco_codes().clear()
    keys = DATASETS["keys"]()
    keys.loc[0, "hisco"] = 5
    assert len(hisco_codes()) == 1919
    assert DATASETS["keys"]().loc[0, "hisco"] == -3


def test_names():
    assert list(DATASETS) == ["keys", "toydata"]
    with pytest.raises(KeyError, match="hisko"):
        DATASETS["hisko"]()


def test_toydata_joins_the_parts_and_keeps_every_word(tmp_path, monkeypatch):
    monkeypatch.setattr(histocc.datasets, "DATA_FOLDER", tmp_path)
    train, val = sample_paths()
    train.write_text("occ1,lang,code1,code2,code3,code4,code5\nnan,en,3,4,,,\n,unk,0,,,,\n", encoding="utf-8")
    val.write_text("occ1,lang,code1,code2,code3,code4,code5\nNA,da,1918,,,,\n", encoding="utf-8")
    toy = DATASETS["toydata"]()
    assert list(toy.columns) == COLUMNS
    assert toy["occ1"].tolist() == ["nan", "", "NA"]
    assert toy.index.tolist() == [0, 1, 2]
    assert toy["code1"].tolist() == [3, 0, 1918]
    assert toy["hisco_1"].tolist() == [int(hisco_codes()[index]) for index in (3, 0, 1918)]
    assert toy["code2"].isna().tolist() == [False, True, True]


def test_the_sample_joins_its_key_and_passes_the_formatters():
    toy = DATASETS["toydata"]()
    joined = toy.merge(DATASETS["keys"](), left_on="hisco_1", right_on="hisco")
    assert len(joined) == len(toy) > 1000
    assert joined["code1"].tolist() == joined["code"].tolist()
    general, hisco = construct_general_purpose_formatter(5, ["hisco_1"]), hisco_blocky5()
    for i in range(0, len(toy), 97):
        row = toy.iloc[[i]]
        code = general.clean_pred(general.transform_label(row))
        assert code == str(toy["hisco_1"].iloc[i])
        assert int(hisco.clean_pred(hisco.transform_label(row)).split("&")[0]) == int(code)


def test_importing_is_light():
    code = (
        "import sys, histocc; before = set(sys.modules); import histocc.datasets; "
        "print(*sorted({'pandas', 'torch', 'transformers'} & (set(sys.modules) - before)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
