"""Labels, tokens and cleaned text as the original has them."""

import json

import numpy as np
import pandas as pd
import pytest

from histocc.formatter import (
    construct_finetune_formatter,
    construct_general_purpose_formatter,
    hisco_blocky5,
    occ1950_blocky1,
    occ1950_blocky2,
)

FORMATTERS = {
    "hisco": hisco_blocky5(),
    "occ1950_1": occ1950_blocky1(),
    "occ1950_2": occ1950_blocky2(),
    "gpf_block5": construct_general_purpose_formatter(5, ["a", "b"]),
    "gpf_pst": construct_general_purpose_formatter(8, ["a", "b", "c"], use_within_block_sep=True),
    "finetune_block4": construct_finetune_formatter(4, ["a", "b"]),
}


@pytest.fixture(scope="module")
def expected(golden):
    return json.loads((golden / "formatters.json").read_text())


def test_every_golden_formatter_is_tested(expected):
    assert set(expected) - {"clean"} == set(FORMATTERS)


@pytest.mark.parametrize("name", FORMATTERS)
def test_shapes(expected, name):
    formatter = FORMATTERS[name]
    assert formatter.max_seq_len == formatter.max_num_codes * formatter.block_size + 2
    assert formatter.num_classes == [max(formatter.map_idx_char) + 1] * formatter.max_seq_len
    for attribute in {"num_classes", "max_seq_len", "max_num_codes", "block_size"} & set(expected[name]):
        assert getattr(formatter, attribute) == expected[name][attribute]
    if "n_chars" in expected[name]:
        assert len(formatter.map_char_idx) == len(formatter.map_idx_char) == expected[name]["n_chars"]


@pytest.mark.parametrize("name", FORMATTERS)
def test_strings(expected, name):
    formatter = FORMATTERS[name]
    for case in expected[name]["strings"]:
        tokens = formatter.transform_label(case["label"])
        assert tokens.dtype == np.float64
        assert tokens.tolist() == case["tokens"]
        assert formatter.clean_pred(tokens) == case["clean"]
        assert formatter.clean_pred(case["tokens"]) == case["clean"]


@pytest.mark.parametrize("name", FORMATTERS)
def test_blocks_make_up_the_label(expected, name):
    formatter = FORMATTERS[name]
    size = formatter.block_size
    for case in expected[name]["strings"]:
        for i, code in enumerate(case["label"].split("&")):
            block = formatter.encode_block(code)
            assert block.dtype == np.int64
            assert block.tolist() == case["tokens"][1 + i * size : 1 + (i + 1) * size]
            assert formatter.decode_block(block) == case["clean"].split("&")[i]


def test_rows_of_class_indices(expected):
    formatter = FORMATTERS["hisco"]
    for case in expected["hisco"]["rows"]:
        row = pd.Series(case["codes"], index=formatter.row_columns)
        assert formatter.transform_label(row).tolist() == case["tokens"]
        assert formatter.transform_label(row.to_frame().T).tolist() == case["tokens"]


def test_noisy_predictions(expected):
    for case in expected["clean"]:
        assert FORMATTERS[case["formatter"]].clean_pred(case["tokens"]) == case["clean"]
