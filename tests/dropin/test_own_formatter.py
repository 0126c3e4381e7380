"""Formatters of one's own: an overridden method of ours, or any object with the five names."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from histocc.dataloader import TrainBatchSampler, make_loader
from histocc.formatter import PAD_IDX, BlockyFormatter, BlockyHISCOFormatter, hisco_blocky5
from histocc.formatter import construct_general_purpose_formatter as general_purpose

PARTS = ("max_num_codes", "map_char_idx", "map_idx_char", "sep_value")


def like(formatter, cls):
    made = cls.__new__(cls)
    made.__dict__.update(formatter.__dict__)
    return made


def labels(dataset):
    """Labels of all rows in a loader of one's own and in ours."""
    own = next(iter(DataLoader(dataset, batch_size=len(dataset))))
    ours = next(iter(make_loader(dataset, TrainBatchSampler(len(dataset), len(dataset), seed=1, shuffle=False))))
    assert torch.equal(own["targets_seq2seq"], ours["targets_seq2seq"])
    assert own["targets_seq2seq"].dtype == torch.int64
    return ours["targets_seq2seq"]


class FirstCodeAlone(BlockyHISCOFormatter):
    def transform_label(self, raw_input):
        label = super().transform_label(raw_input)
        label[6:-1] = PAD_IDX
        return label


class Upper(BlockyFormatter):
    def sanitize(self, raw_input):
        return super().sanitize(raw_input).upper()


def test_transform_label(make_dataset, rows_csv):
    plain = labels(make_dataset(rows_csv, training=False))
    found = labels(make_dataset(rows_csv, formatter=like(hisco_blocky5(), FirstCodeAlone), training=False))
    assert (plain[:, 6:-1] != PAD_IDX).any()
    assert (found[:, 6:-1] == PAD_IDX).all()
    assert torch.equal(found[:, :6], plain[:, :6])


def test_transform_label_of_the_object_itself(make_dataset, rows_csv):
    formatter = hisco_blocky5()
    dataset = make_dataset(rows_csv, formatter=formatter, training=False)
    labels(dataset)
    formatter.transform_label = lambda record: np.arange(27.0)
    assert (labels(dataset) == torch.arange(27)).all()


def test_sanitize(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,a\nfarmer,en,x1\nsmith,en,Y2\n", encoding="utf-8")
    plain = general_purpose(2, ["a"])
    formatter = like(plain, Upper)
    assert formatter.transform_label("x1").tolist() == plain.transform_label("X1").tolist()
    assert formatter.transform_label(pd.DataFrame({"a": ["x1"]})).tolist() == plain.transform_label("X1").tolist()
    from histocc import OccDatasetMixerInMemMultipleFiles

    dataset = OccDatasetMixerInMemMultipleFiles(
        [path], formatter, None, 32, 2, training=False, target_cols=["a"], map_code_label={"x1": 0, "Y2": 1}
    )
    assert [formatter.clean_pred(label) for label in labels(dataset)] == ["X1", "Y2"]
    assert dataset.batch(np.arange(2), 0)["targets_linear"].tolist() == [[1, 0], [0, 1]]


class Pairs:
    """Nothing but what a formatter must have: a label of two tokens, the class index in base 50."""

    max_num_codes, block_size, max_seq_len, num_classes = 5, 2, 4, [50] * 4

    def __init__(self):
        self.seen = []

    def transform_label(self, record):
        code = record["code1"].iloc[0]
        self.seen.append(record)
        return [2, int(code) // 50, int(code) % 50, 3]


def test_any_object(make_dataset, rows_csv):
    formatter = Pairs()
    dataset = make_dataset(rows_csv, formatter=formatter)
    first = dataset.frame["code1"].to_numpy(dtype=np.int64)
    wanted = np.stack([np.full(45, 2), first // 50, first % 50, np.full(45, 3)], axis=1)
    assert labels(dataset).tolist() == wanted.tolist()
    assert isinstance(formatter.seen[0], pd.DataFrame)
    # The classes are those of the class indices all the same.
    linear = next(iter(DataLoader(dataset, batch_size=45)))["targets_linear"]
    plain = make_dataset(rows_csv, training=False)
    assert torch.equal(linear, torch.stack([plain[i]["targets_linear"] for i in range(45)]))


def test_a_row_without_a_code_gets_no_description(tmp_path):
    from histocc import OccDatasetMixerInMemMultipleFiles

    class First(Pairs):
        def transform_label(self, record):
            return [2, 0, 0, 3]

    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,a\nnobody,en,\nfarmer,en,0\n", encoding="utf-8")
    calm = {"alt_prob": 0.0, "unk_lang_prob": 0.0, "description_prob": 1.0, "include_descriptions": True}
    dataset = OccDatasetMixerInMemMultipleFiles(
        [path], First(), None, 64, 1, target_cols=["a"], descriptions={"0": "works the land"}, **calm
    )
    assert [dataset[i]["occ1"] for i in range(2)] == ["en[SEP]nobody", "en[SEP]farmer [DESC: works the land"]


def test_any_object_with_noise_off_or_on(make_dataset, same_rows_csv):
    dataset = make_dataset(same_rows_csv, formatter=Pairs(), alt_prob=1.0)
    plain = make_dataset(same_rows_csv, alt_prob=1.0)
    rows = np.arange(64)
    assert torch.equal(dataset.batch(rows, 2)["input_ids"], plain.batch(rows, 2)["input_ids"])
    assert len({tuple(ids) for ids in dataset.batch(rows, 2)["input_ids"].tolist()}) > 55


def test_a_code_that_a_formatter_of_ones_own_refuses_is_told_when_its_row_comes(make_dataset, same_rows_csv):
    class Strict(Pairs):
        def transform_label(self, record):
            raise ValueError("no such code: 5")

    with pytest.raises(ValueError, match="no such code: 5"):
        make_dataset(same_rows_csv, formatter=Strict())[0]
