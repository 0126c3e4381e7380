"""Attributes of the data set that are set after it was made."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from histocc import OccDatasetMixerInMemMultipleFiles
from histocc.attacker import AttackerClass
from histocc.errors import UsageError
from histocc.formatter import construct_general_purpose_formatter, hisco_blocky5

KEY = {"x1": 0, "Y2": 1, "Z3": 2}


def texts(dataset):
    """Input texts of a pass with a loader of one's own, and the same of ours."""
    own = [text for batch in DataLoader(dataset, batch_size=16) for text in batch["occ1"]]
    ids = dataset.batch(np.arange(len(dataset)), 0)["input_ids"].tolist()
    return own, ["".join(map(chr, row[1 : row.index(0xE001)])) for row in ids]


@pytest.fixture
def coded(tmp_path):
    path = tmp_path / "coded.csv"
    path.write_text("occ1,lang,a,b\nfarmer,en,x1,Y2\nsmith,da,Y2,\n", encoding="utf-8")

    def make(formatter=None, **options):
        formatter = formatter or construct_general_purpose_formatter(2, ["a", "b"])
        options = {"training": False, "target_cols": ["a", "b"], "map_code_label": KEY, **options}
        return OccDatasetMixerInMemMultipleFiles([path], formatter, None, 32, 3, **options)

    return make


def classes(dataset):
    batch = dataset.batch(np.arange(len(dataset)), 0)
    return [[c for c in row if c >= 0] for row in batch["targets_classes"].tolist()]


def test_training(make_dataset, same_rows_csv):
    dataset = make_dataset(same_rows_csv, alt_prob=1.0)
    dataset.training = False
    assert all(set(found) == {"en[SEP]blacksmith and farmer"} for found in texts(dataset))
    other = make_dataset(same_rows_csv, alt_prob=1.0, training=False)
    other.training = True
    dataset.training = True
    rows = np.arange(64)
    assert torch.equal(other.batch(rows, 1)["input_ids"], dataset.batch(rows, 1)["input_ids"])
    assert all(len(set(found)) > 55 for found in texts(other))


def test_probabilities(make_dataset, same_rows_csv):
    dataset = make_dataset(same_rows_csv, alt_prob=0.0, unk_lang_prob=0.0)
    assert (dataset.alt_prob, dataset.n_trans, dataset.unk_lang_prob) == (0.0, 3, 0.0)
    assert all(set(found) == {"en[SEP]blacksmith and farmer"} for found in texts(dataset))
    dataset.unk_lang_prob = 1.0
    assert all(set(found) == {"unk[SEP]blacksmith and farmer"} for found in texts(dataset))
    dataset.alt_prob = 1.0
    assert all(len(set(found)) > 55 for found in texts(dataset))
    for name, value in (("alt_prob", 1.5), ("unk_lang_prob", -1), ("n_trans", -1)):
        with pytest.raises(UsageError, match=f"{name} is {value}"):
            setattr(dataset, name, value)


def test_frame_edited_in_place(make_dataset, rows_csv):
    dataset = make_dataset(rows_csv, training=False)
    before = texts(dataset)
    assert dataset.frame is dataset.frame
    dataset.frame.loc[3, "occ1"] = "blacksmith"
    dataset.frame.loc[3, "lang"] = "xx"
    dataset.frame.loc[3, ["code1", "code2"]] = [3, 7]
    for found, old in zip(texts(dataset), before):
        assert found[3] == "xx[SEP]blacksmith"
        assert found[:3] + found[4:] == old[:3] + old[4:]
    item = dataset[3]
    assert item["targets_linear"].nonzero().flatten().tolist() == [3, 7]
    assert hisco_blocky5().clean_pred(item["targets_seq2seq"]).split("&")[0] == "01110"
    assert "xx" in dataset.languages
    assert dataset.languages[dataset.language_index[3]] == "xx"
    assert dataset.text[3] == "blacksmith"


def test_frame_that_is_only_looked_at_changes_nothing(make_dataset, rows_csv):
    seen, plain = make_dataset(rows_csv, alt_prob=0.8), make_dataset(rows_csv, alt_prob=0.8)
    assert len(seen.frame) == 45
    for name, tensor in plain.batch(np.arange(45), 2).items():
        assert torch.equal(seen.batch(np.arange(45), 2)[name], tensor)
    assert plain.language_index.tolist() == seen.language_index.tolist()
    assert plain.languages == seen.languages


def test_frame_assigned(make_dataset, rows_csv):
    dataset = make_dataset(rows_csv, training=False)
    plain = texts(dataset)
    dataset.frame = dataset.frame[dataset.frame["lang"] == "en"]
    assert 0 < len(dataset) < 45
    for found, all_of_them in zip(texts(dataset), plain):
        assert found == [text for text in all_of_them if text.startswith("en[SEP]")]
    frame = pd.DataFrame({"occ1": ["smith", None], "lang": ["en", "da"], "code1": [5.0, 7.0], "code2": [8, None]})
    dataset.frame = frame.assign(code3=None, code4=None, code5=np.nan)
    assert list(texts(dataset)[0]) == ["en[SEP]smith", "da[SEP]"]
    assert classes(dataset) == [[5, 8], [7]]


def test_frames_that_cannot_be_used_are_refused(make_dataset, rows_csv):
    dataset = make_dataset(rows_csv, training=False)
    with pytest.raises(UsageError, match="must be a pandas DataFrame, not list"):
        dataset.frame = [1]
    with pytest.raises(UsageError, match="frame of the data set has no column 'lang'"):
        dataset.frame = dataset.frame.drop(columns="lang")
    dataset.frame = dataset.frame.drop(columns="code3")
    with pytest.raises(UsageError, match="frame of the data set has no column 'code3'"):
        dataset[0]
    dataset = make_dataset(rows_csv, training=False)
    dataset.frame.loc[2, "code1"] = 4000
    with pytest.raises(UsageError, match=r"row 2 \(counted from 0\), column 'code1': '4000' is a class outside"):
        dataset.batch(np.arange(5), 0)
    dataset.frame.loc[2, "code1"] = np.nan
    with pytest.raises(UsageError, match=r"row 2 \(counted from 0\), column 'code1': the first code is missing"):
        dataset[2]
    dataset.frame = dataset.frame.iloc[:2]
    with pytest.raises(UsageError, match=r"Row 4 .* has 2 rows now: change the frame before loaders"):
        dataset.batch(np.arange(5), 0)


def test_attacker(make_dataset, same_rows_csv):
    class Shout:
        def attack(self, input_string):
            return f"[{input_string.upper()}]"

    dataset = make_dataset(same_rows_csv, alt_prob=0.0, unk_lang_prob=0.0)
    dataset.attacker = Shout()
    assert all(set(found) == {"en[SEP]BLACKSMITH AND FARMER"} for found in texts(dataset))
    with pytest.raises(UsageError, match="alt_prob is for the attacker to heed, and Shout has none"):
        dataset.alt_prob = 0.5
    with pytest.raises(UsageError, match=r"An attacker has a method attack\(text\)"):
        dataset.attacker = None

    class Silent(Shout):
        def attack(self, input_string):
            pass

    dataset.attacker = Silent()
    with pytest.raises(UsageError, match=r"Silent\.attack must return the text"):
        dataset[0]


def test_attacker_of_the_original(make_dataset, same_rows_csv):
    dataset = make_dataset(same_rows_csv, unk_lang_prob=0.0)
    dataset.attacker = AttackerClass(alt_prob=1.0, n_trans=3, df=dataset.frame)
    torch.manual_seed(1)
    first = texts(dataset)
    assert all(len(set(found)) > 55 for found in first)
    second = texts(dataset)
    assert first[1] == second[1]  # by (seed, epoch)
    assert first[0] != second[0]
    torch.manual_seed(1)
    assert texts(dataset) == first


def test_attacker_edited_in_place(make_dataset, same_rows_csv):
    dataset = make_dataset(same_rows_csv, alt_prob=0.7, n_trans=2, unk_lang_prob=0.0)
    attacker = dataset.attacker
    assert type(attacker) is AttackerClass
    assert (attacker.alt_prob, attacker.n_trans, attacker.word_list) == (0.7, 2, ["and", "blacksmith", "farmer"])
    attacker.transformations = [str.upper]
    dataset.alt_prob = 1.0
    assert attacker.alt_prob == 1.0
    assert all(set(found) == {"en[SEP]BLACKSMITH AND FARMER"} for found in texts(dataset))
    attacker.alt_prob = 0.0
    assert all(set(found) == {"en[SEP]blacksmith and farmer"} for found in texts(dataset))


def test_tokenizer(make_dataset, same_rows_csv, tokenizer):
    class Letters:
        def __call__(self, text, max_length, **options):
            assert options["return_tensors"] == "pt"
            ids = [ord(c) - ord("a") + 1 for c in text if c.isalpha()][:max_length]
            padding = [0] * (max_length - len(ids))
            return {"input_ids": [ids + padding], "attention_mask": torch.tensor([[1] * len(ids) + padding])}

    dataset = make_dataset(same_rows_csv, training=False)
    plain = dataset[0]
    dataset.tokenizer = Letters()
    for batch in (next(iter(DataLoader(dataset, batch_size=4))), dataset.batch(np.arange(4), 0)):
        assert batch["input_ids"].shape == (4, 64)
        assert batch["input_ids"][0, :4].tolist() == [5, 14, -13, -27]  # "enSE"
        assert batch["attention_mask"][0].sum() == 24
    dataset.tokenizer = tokenizer
    assert torch.equal(dataset[0]["input_ids"], plain["input_ids"])
    assert "targets_classes" in dataset.batch(np.arange(4), 0)  # made a batch at a time again
    dataset.tokenizer = copy.copy(tokenizer)
    dataset.tokenizer.padding_side = "left"
    assert dataset[0]["input_ids"][0] == 0
    dataset.tokenizer = lambda text, **options: {"input_ids": [1, 2], "attention_mask": [1, 1]}
    with pytest.raises(UsageError, match="makes 2 ids and a mask of 2, but was asked for 64"):
        dataset[0]


def test_a_tokenizer_of_ones_own_from_the_start(rows_csv):
    class Ones:
        def __call__(self, text, max_length, **options):
            return {"input_ids": torch.ones(1, max_length), "attention_mask": torch.ones(1, max_length)}

    dataset = OccDatasetMixerInMemMultipleFiles([rows_csv], hisco_blocky5(), Ones(), 16, 1919)
    assert dataset.batch(np.arange(3), 0)["input_ids"].tolist() == [[1] * 16] * 3


def test_key_and_number_of_classes(coded):
    dataset = coded()
    assert classes(dataset) == [[0, 1], [1]]
    dataset.map_code_label = {"x1": 2, "Y2": 0, "Z3": 1}
    assert classes(dataset) == [[2, 0], [0]]
    assert dataset[0]["targets_linear"].tolist() == [1, 0, 1]
    dataset.num_classes_flat = 5
    assert dataset[0]["targets_linear"].tolist() == [1, 0, 1, 0, 0]
    dataset.map_code_label = {"x1": 0}
    with pytest.raises(UsageError, match=r"(?s)codes that do not fit .*'Y2': a code that is not in the key"):
        dataset[1]
    dataset.map_code_label, dataset.num_classes_flat = KEY, 1
    with pytest.raises(UsageError, match=r"(?s)'Y2': a class outside 0\.\.0"):
        dataset[1]


def test_formatter(coded):
    dataset = coded()
    dataset.formatter = construct_general_purpose_formatter(4, ["a", "b"])
    assert dataset[0]["targets_seq2seq"].tolist() == dataset.formatter.transform_label("x1&Y2").tolist()
    dataset.formatter = construct_general_purpose_formatter(1, ["a", "b"])
    with pytest.raises(UsageError, match=r"(?s)'x1': a code that the formatter cannot write \(Code 'x1' has 2"):
        dataset[0]
    dataset.formatter = construct_general_purpose_formatter(2, ["a"])
    with pytest.raises(UsageError, match="room for 1 to 1 codes"):
        dataset[0]


def test_columns(coded):
    dataset = coded()
    assert dataset.colnames == ["occ1", "lang", "a", "b"]
    with pytest.raises(UsageError, match="colnames says how the files were read and cannot be changed"):
        dataset.colnames = ["occ1", "lang", "b", "a"]
    with pytest.raises(UsageError, match="fname_data says how the files were read"):
        dataset.fname_data = "x.csv"
    dataset.target_cols = ["b", "a"]
    with pytest.raises(UsageError, match=r"target_cols is \['b', 'a'\] now, but \['a', 'b'\] were read"):
        dataset[0]
    dataset.frame = pd.DataFrame({"occ1": ["farmer"], "lang": ["en"], "a": ["x1"], "b": ["Y2"], "c": ["Z3"]})
    assert classes(dataset) == [[1, 0]]
    dataset.target_cols = ["c"]
    assert classes(dataset) == [[2]]
    assert dataset[0]["targets_seq2seq"].tolist() == dataset.formatter.transform_label("Z3").tolist()
    assert dataset.map_type_target_cols_default["occ1950"] == ["OCC1950_1", "OCC1950_2"]


def test_length(make_dataset, rows_csv):
    dataset = make_dataset(rows_csv, training=False)
    dataset.max_input_len = 20
    assert dataset[0]["input_ids"].shape == (20,)
    assert dataset.batch(np.arange(3), 0)["input_ids"].shape == (3, 20)
    with pytest.raises(UsageError, match="max_input_len is 1"):
        dataset.max_input_len = 1
