"""Prepared files, as the training reads them."""

from __future__ import annotations

import numpy as np
import pytest

from histocc.formatter import construct_general_purpose_formatter
from histocc.preparation import prepare, setup_finetuning_datasets


@pytest.mark.parametrize("within", [False, True])
def test_codes_reach_the_targets(write_csv, tmp_path, within):
    codes = ["1,2,0", "-1,13,5", "0,0,7", "999,1,1"] if within else ["001", "nan", "a-b", "9.9", "NA?"]
    rows = [
        [f'text {i}, "x" {"NA" * (i % 2)}', codes[i % len(codes)], codes[i % 3] if i % 4 else "", ["en", "NA"][i % 2]]
        for i in range(60)
    ]
    formatter = construct_general_purpose_formatter(3, ["c1", "c2"], use_within_block_sep=within)
    path = write_csv([["what", "c1", "c2", "l"], *rows])
    key, _ = prepare(path, "what", formatter, tmp_path / "out", 0.2, language_col="l", keep_missing_spellings=True)
    train, val = setup_finetuning_datasets(["c1", "c2"], tmp_path / "out", formatter, None, len(key), key, seed=7)
    assert (len(train), len(val)) == (48, 12)
    assert train.training
    assert not val.training
    assert train.map_code_label == val.map_code_label == key

    expected = {f"{language}[SEP]{text}": [code for code in two if code] for text, *two, language in rows}
    for i in range(len(val)):
        item = val[i]
        wanted = expected[item["occ1"]]
        assert item["input_ids"].shape == (128,)
        assert formatter.clean_pred(item["targets_seq2seq"]) == "&".join(wanted)
        assert np.flatnonzero(item["targets_linear"]).tolist() == sorted({key[code] for code in wanted})


def test_raw_sample_of_the_original_has_every_code_in_the_key(golden, tmp_path):
    formatter = construct_general_purpose_formatter(5, ["hisco_1", "hisco_2"])
    table = golden / "finetune_prepare" / "two_cols_missing" / "input.csv"
    key, report = prepare(table, "occ1", formatter, tmp_path / "out", 0.1, language_col="lang_x")
    train, val = setup_finetuning_datasets(["hisco_1", "hisco_2"], tmp_path / "out", formatter, None, len(key), key)
    assert (len(train), len(val)) == (report.rows_train, report.rows_val)
    assert sorted(train.languages) == ["da", "en", "unk"]


@pytest.mark.parametrize("at", [0, 7])
def test_a_text_of_any_length_is_prepared_read_again_and_cut(write_csv, tmp_path, at, formatter):
    rows = [[f"farmer {i}", "61110"] for i in range(20)]
    rows[at][0] = "x" * 200_000
    key, report = prepare(write_csv([["occ1", "hisco_1"], *rows]), "occ1", formatter, tmp_path / "out", 0.2)
    assert (report.rows_train, report.rows_val) == (16, 4)
    data = setup_finetuning_datasets(["hisco_1"], tmp_path / "out", formatter, None, len(key), key)
    data[0].training = False  # noise may insert the text into another one
    items = [part[i] for part in data for i in range(len(part))]
    (longest,) = [item for item in items if "xxx" in item["occ1"]]
    assert longest["attention_mask"].sum() == 128
