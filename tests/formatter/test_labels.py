"""What formatters accept beside strings, and what they refuse."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import histocc.formatter as public
from histocc.datasets import hisco_codes
from histocc.formatter import (
    MAP_IDX_HISCO,
    MAP_IDX_OCC1950,
    MAP_OCC1950_IDX,
    BlockyFormatter,
    BlockyHISCOFormatter,
    BlockyOCC1950Formatter,
    blocky5,
    construct_finetune_formatter,
    construct_general_purpose_formatter,
    hisco_blocky5,
    occ1950_blocky1,
    occ1950_blocky2,
)

HISCO = hisco_blocky5()
OCC1950 = occ1950_blocky2()
GENERAL = construct_general_purpose_formatter(5, ["c1", "c2"])
PST = construct_general_purpose_formatter(8, ["c1", "c2", "c3"], use_within_block_sep=True)
ALL = [HISCO, OCC1950, GENERAL, PST, construct_finetune_formatter(4, ["c1", "c2"])]


def hisco_row(*cells):
    return pd.DataFrame([list(cells) + [None] * (5 - len(cells))], columns=HISCO.row_columns)


def test_public_names_and_indices():
    assert [public.UNK_IDX, public.PAD_IDX, public.BOS_IDX, public.EOS_IDX, public.SEP_IDX] == [0, 1, 2, 3, 4]
    assert list(public.MAP_HISCO_IDX.items()) == [(str(i), i + 8) for i in range(-3, 10)]
    assert list(public.MAP_OCC1950_IDX.items()) == [(str(i), i + 5) for i in range(10)]
    assert {public.MAP_IDX_HISCO[i]: i for i in public.MAP_IDX_HISCO} == public.MAP_HISCO_IDX
    assert all(hasattr(public, name) for name in public.__all__)


def test_importing_is_light():
    code = (
        "import sys, histocc; before = set(sys.modules); import histocc.formatter; "
        "print(*sorted({'pandas', 'torch', 'transformers'} & (set(sys.modules) - before)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_blocky5_is_deprecated():
    with pytest.warns(DeprecationWarning, match="hisco_blocky5"):
        assert isinstance(blocky5(), BlockyHISCOFormatter)


def test_row_columns():
    assert HISCO.row_columns == ("code1", "code2", "code3", "code4", "code5")
    assert HISCO.code_len == HISCO.block_size == 5
    assert occ1950_blocky1().row_columns == ("OCC1950_1",)
    assert OCC1950.row_columns == ("OCC1950_1", "OCC1950_2")
    assert GENERAL.row_columns == ("c1", "c2")


@pytest.mark.parametrize("formatter", ALL)
def test_none_gives_none(formatter):
    assert formatter.transform_label(None) is None
    assert formatter.sanitize(None) is None


@pytest.mark.parametrize(
    "cells",
    [(1918, 3), (1918.0, 3.0), ("1918", "3"), ("1918.0", "3.0"), (np.int64(1918), np.float32(3)), ("1918", 3.0)],
)
def test_hisco_rows_carry_class_indices(cells):
    frame = hisco_row(*cells)
    for row in (frame, frame.iloc[0], frame.astype(object).iloc[0]):
        assert HISCO.sanitize(row) == "99999&01110"
        assert HISCO.transform_label(row).tolist() == HISCO.transform_label("99999&01110").tolist()


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, "", " "])
def test_first_missing_code_ends_the_row(missing):
    assert HISCO.sanitize(pd.Series([3, missing, 4, 5, 6], index=HISCO.row_columns, dtype=object)) == "01110"
    assert GENERAL.sanitize(pd.Series(["ab", missing], index=["c1", "c2"], dtype=object)) == "ab"
    assert GENERAL.sanitize(pd.Series([missing, "ab"], index=["c1", "c2"], dtype=object)) == ""


def test_nullable_integers_and_extra_columns():
    frame = hisco_row(0, 1, 2).astype("Int64").assign(occ1="farmer")
    assert HISCO.sanitize(frame) == "-3&-2&-1"


def test_every_class_has_its_code():
    codes = hisco_codes()
    assert [HISCO.code_from_class(i) for i in range(len(codes))] == codes
    assert HISCO.lookup_hisco[3] == 1110
    for code in codes:
        assert HISCO.clean_pred(HISCO.transform_label(code)) == code


def test_hisco_key_can_be_replaced():
    formatter = hisco_blocky5()
    formatter.lookup_hisco = {0: -1, 1: 1110}
    assert formatter.sanitize(hisco_row(1, 0)) == "01110&-1"
    with pytest.raises(ValueError, match=r"2 is not a HISCO class index, which runs from 0 to 1"):
        formatter.sanitize(hisco_row(2))


@pytest.mark.parametrize("cells", [("043", "720"), ("043", 720), ("043", 720.0)])
def test_occ1950_rows(cells):
    row = pd.DataFrame([cells], columns=OCC1950.row_columns)
    assert OCC1950.sanitize(row) == "043&720"
    assert OCC1950.clean_pred(OCC1950.transform_label(row)) == "043&720"


def test_general_rows_turn_floats_into_whole_numbers():
    row = pd.DataFrame({"c1": [61110.0], "c2": [1.5]})
    assert GENERAL.sanitize(row) == "61110&1.5"
    assert GENERAL.sanitize(pd.DataFrame({"c2": ["x"], "c1": [7]})) == "7&x"


def test_general_row_without_code_is_a_block_of_end_tokens():
    row = pd.DataFrame({"c1": [None], "c2": ["ab"]})
    assert GENERAL.transform_label(row).tolist() == [2, 3, 3, 3, 3, 3, 1, 1, 1, 1, 1, 3]
    assert PST.encode_block("").tolist() == [3] * 8


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["1110", "011100", "0111a", "-4", "", "-", "01110&", "٠1110", " 01110"])
def test_hisco_wants_five_digits(label):
    bad = label.split("&")[-1]
    with pytest.raises(ValueError, match=rf"'{bad}' is not a HISCO code: write five digits"):
        HISCO.transform_label(label)


@pytest.mark.parametrize("code", ["43", "0433", "04a", "", "-1"])
def test_occ1950_wants_three_digits(code):
    with pytest.raises(ValueError, match=rf"'{code}' is not an OCC1950 code: write three digits"):
        OCC1950.transform_label(code)


def test_occ1950_number_that_lost_its_zero():
    with pytest.raises(ValueError, match=r"'43' is not an OCC1950 code.*leading zeros"):
        OCC1950.transform_label(pd.DataFrame({"OCC1950_1": [43], "OCC1950_2": [None]}))


@pytest.mark.parametrize(
    ("formatter", "label"),
    [(HISCO, "&".join(["01110"] * 6)), (OCC1950, "043&043&043"), (GENERAL, "1&2&3"), (PST, "1&2&3&4")],
)
def test_too_many_codes(formatter, label):
    n = label.count("&") + 1
    with pytest.raises(ValueError, match=rf"'{label}' holds {n} codes, but a label has room for {n - 1}: drop"):
        formatter.transform_label(label)


def test_too_long_codes():
    with pytest.raises(ValueError, match=r"Code '123456' has 6 characters, but a block holds 5: .*--block-size 6"):
        GENERAL.transform_label("12&123456")
    with pytest.raises(ValueError, match=r"Code '1,2,3,4,5,6,7,8,9' has 9 pieces, but a block holds 8"):
        PST.transform_label("1,2,3,4,5,6,7,8,9")


def test_unknown_characters():
    with pytest.raises(ValueError, match=r"Code '12é' has the character 'é', which this formatter does not know"):
        GENERAL.transform_label("12é")
    with pytest.raises(ValueError, match=r"Code '1,2' has the character ','.*--use-within-block-sep"):
        GENERAL.transform_label("1,2")
    with pytest.raises(ValueError, match=r"Code '1,1000' has the piece '1000'"):
        PST.transform_label("1,1000")
    with pytest.raises(ValueError, match=r"Code '1,,2' has the piece ''"):
        PST.transform_label("1,,2")
    with pytest.raises(ValueError, match=r"Code 'A1' has the character 'A'"):
        construct_finetune_formatter(5, ["c"]).transform_label("A1")


@pytest.mark.parametrize(("formatter", "column"), [(HISCO, "code1"), (OCC1950, "OCC1950_1")], ids=["hisco", "occ1950"])
def test_row_without_code(formatter, column):
    row = pd.DataFrame([[None] * formatter.max_num_codes], columns=formatter.row_columns)
    with pytest.raises(ValueError, match=rf"no code in '{column}'"):
        formatter.transform_label(row)


@pytest.mark.parametrize("cell", [1919, -1, 99999.0, "61110"])
def test_class_index_out_of_range(cell):
    number = int(float(cell))
    with pytest.raises(ValueError, match=rf"{number} is not a HISCO class index, which runs from 0 to 1918: if it is"):
        HISCO.transform_label(hisco_row(cell))


@pytest.mark.parametrize("cell", ["farmer", 3.5, float("inf"), "?", "1_0", "１２", pd.Timestamp("1850-01-01")])
def test_cell_that_is_no_class_index(cell):
    with pytest.raises(ValueError, match=r"is not a HISCO class index: code columns hold whole numbers"):
        HISCO.transform_label(pd.Series([cell, None, None, None, None], index=HISCO.row_columns, dtype=object))


def test_rows_of_the_wrong_shape():
    with pytest.raises(ValueError, match="the DataFrame has 2"):
        HISCO.transform_label(pd.concat([hisco_row(3), hisco_row(4)]))
    with pytest.raises(ValueError, match=r"lacks the code columns \['code4', 'code5'\]"):
        HISCO.transform_label(pd.Series({"code1": 3, "code2": 4, "code3": 5}))
    with pytest.raises(TypeError, match="not int"):
        HISCO.transform_label(61110)


@pytest.mark.parametrize("construct", [construct_general_purpose_formatter, construct_finetune_formatter])
def test_duplicate_characters(construct):
    with pytest.raises(ValueError, match=r"duplicate characters: \['a', '1'\]"):
        construct(5, ["c"], chars=["a", "1", "a", "b", "1"])


def test_characters_of_ones_own():
    formatter = construct_finetune_formatter(3, ["c"], chars="xyz")
    assert formatter.encode_block("zx").tolist() == [7, 5, 3]
    assert construct_general_purpose_formatter(3, ["c"], chars=["10", "2"]).num_classes == [7] * 5
    with pytest.raises(ValueError, match=r"not one character: \['10', ''\]"):
        construct_finetune_formatter(3, ["c"], chars=["1", "10", ""])


@pytest.mark.parametrize("sep", ["&", ","])
def test_equal_separators(sep):
    with pytest.raises(ValueError, match=f"'{sep}' cannot separate both"):
        BlockyFormatter(["c"], 3, {"a": 5}, {5: "a"}, sep_value=sep, within_block_sep=sep)


@pytest.mark.parametrize("target_cols", [[], (), "code"])
def test_target_columns_are_a_list(target_cols):
    with pytest.raises(ValueError, match="at least one column"):
        construct_general_purpose_formatter(5, target_cols)


def test_sizes_below_one():
    with pytest.raises(ValueError, match="block size of 0"):
        construct_general_purpose_formatter(0, ["c"])
    with pytest.raises(ValueError, match="got 0 codes"):
        BlockyOCC1950Formatter(0, MAP_OCC1950_IDX, MAP_IDX_OCC1950)


# --- predictions -----------------------------------------------------------------------------------------------------


def test_without_separator_a_label_is_one_code():
    formatter = BlockyOCC1950Formatter(2, MAP_OCC1950_IDX, MAP_IDX_OCC1950)
    assert formatter.clean_pred(formatter.transform_label("043")) == "043"
    with pytest.raises(ValueError, match="'043&720' is not an OCC1950"):
        formatter.transform_label("043&720")


def test_empty_code_keeps_its_separator():
    assert GENERAL.clean_pred([2, 3, 3, 3, 3, 3, 1004, 3, 3, 3, 3, 3]) == "&0"
    assert GENERAL.decode_block([3] * 5) == ""
    assert GENERAL.decode_block([1] * 5) is None
    # Only a block that is PAD throughout is an unused one.
    assert GENERAL.decode_block([1, 1, 1, 1, 3]) == ""


def test_special_tokens_inside_a_block():
    assert GENERAL.decode_block([1004, 1, 2, 4, 1005]) == "01"
    assert GENERAL.decode_block([1004, 99999, 0, -5, 3]) == "0"
    assert HISCO.decode_block([9, 9, 9, 9, 3]) is None
    assert HISCO.decode_block([7, 9, 9, 9, 1]) is None
    assert HISCO.decode_block([7, 9, 9, 9, 9]) == "-1"
    assert OCC1950.decode_block([5, 6, 4]) is None


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda t: [torch.tensor(i) for i in t]])
def test_clean_pred_takes_sequences_of_any_kind(kind):
    tokens = HISCO.transform_label("01110&-1").astype(int).tolist()
    assert HISCO.clean_pred(kind(tokens)) == "01110&-1"


@pytest.mark.parametrize("formatter", ALL)
@given(data=st.data())
def test_clean_pred_never_raises(formatter, data):
    tokens = data.draw(st.lists(st.integers(-3, 2100), max_size=formatter.max_seq_len + 3))
    assert formatter.clean_pred(tokens).count("&") < formatter.max_num_codes


@given(st.lists(st.text("0123456789abcXYZ-./", min_size=1, max_size=5), min_size=1, max_size=2))
def test_general_labels_come_back(codes):
    label = "&".join(codes)
    assert GENERAL.clean_pred(GENERAL.transform_label(label)) == label


@given(st.lists(st.lists(st.integers(-999, 999), min_size=1, max_size=8), min_size=1, max_size=3))
def test_piecewise_labels_come_back(codes):
    label = "&".join(",".join(map(str, code)) for code in codes)
    assert PST.clean_pred(PST.transform_label(label)) == label


def test_hisco_alphabet_holds_no_special_index():
    assert min(MAP_IDX_HISCO) == public.SEP_IDX + 1
