"""Subclasses of the data set: what they override is seen in batches of every loader."""

import random

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from histocc import OccDatasetMixerInMemMultipleFiles as Original
from histocc.dataloader import TrainBatchSampler, make_loader
from histocc.errors import UsageError
from histocc.formatter import hisco_blocky5

NAMES = ("input_ids", "attention_mask", "targets_seq2seq")


def batches_of(dataset, batch_size=9):
    """The whole data set in the loaders that users have: their own without and with workers, and ours."""
    yield next(iter(DataLoader(dataset, batch_size=len(dataset))))
    parts = list(DataLoader(dataset, batch_size=batch_size, num_workers=2))
    yield {
        name: torch.cat([part[name] for part in parts])
        if torch.is_tensor(parts[0][name])
        else [text for part in parts for text in part[name]]
        for name in parts[0]
    }
    yield next(iter(make_loader(dataset, TrainBatchSampler(len(dataset), len(dataset), seed=1, shuffle=False))))


def shown(batch, row):
    ids = batch["input_ids"][row].tolist()
    return "".join(map(chr, ids[1 : ids.index(0xE001)]))


def test_prepare_input(make_dataset, rows_csv):
    class Upper(Original):
        def _prepare_input(self, occ_descr, lang):
            return f"{lang}: {occ_descr.upper()}"

    plain = make_dataset(rows_csv, training=False)
    for batch in batches_of(make_dataset(rows_csv, Upper, training=False)):
        for row in (0, 7, 44):
            lang, _, text = plain[row]["occ1"].partition("[SEP]")
            assert batch["occ1"][row] == f"{lang}: {text.upper()}"
            assert shown(batch, row) == f"{lang}: {text.upper()}"[:62]


def test_augmentation(make_dataset, rows_csv):
    class Reversed(Original):
        def _augment_occ_descr_lang(self, occ_descr, lang):
            return occ_descr[::-1], "xx"

    plain = make_dataset(rows_csv, training=False)
    for batch in batches_of(make_dataset(rows_csv, Reversed)):
        assert all(
            batch["occ1"][row] == "xx[SEP]" + plain[row]["occ1"].partition("[SEP]")[2][::-1] for row in range(45)
        )
    calm = make_dataset(rows_csv, Reversed, training=False)
    assert calm[0]["occ1"] == plain[0]["occ1"]


def test_target_linear(make_dataset, rows_csv):
    class Smoothed(Original):
        def _get_target_linear(self, record):
            return super()._get_target_linear(record) * 0.9

    plain = make_dataset(rows_csv, training=False)
    wanted = torch.stack([item["targets_linear"] for item in plain.__getitems__(range(45))]) * 0.9
    for batch in batches_of(make_dataset(rows_csv, Smoothed, training=False)):
        assert torch.equal(batch["targets_linear"], wanted)
        assert "targets_classes" not in batch


def test_target_linear_of_codes_without_a_class(tmp_path, make_dataset):
    """Whoever gives classes otherwise needs no key."""

    class Grouped(Original):
        def _get_target_linear(self, record):
            linear = torch.zeros(self.num_classes_flat)
            linear[int(str(record["code1"].iloc[0])[0])] = 1
            return linear

    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,code1,code2,code3,code4,code5\na,en,1500,,,,\n", encoding="utf-8")
    dataset = make_dataset(path, Grouped, training=False, map_code_label={})
    assert dataset[0]["targets_linear"].nonzero().tolist() == [[1]]
    with pytest.raises(UsageError, match="not in the key"):
        make_dataset(path, training=False, map_code_label={})


def test_record(make_dataset, rows_csv):
    class Corrected(Original):
        def _get_record(self, item):
            record = super()._get_record(item)
            record["occ1"] = f"row {item}"
            record["code1"] = 3
            return record

    wanted = torch.as_tensor(hisco_blocky5().transform_label("01110"))
    for batch in batches_of(make_dataset(rows_csv, Corrected, training=False)):
        assert [text.partition("[SEP]")[2] for text in batch["occ1"]] == [f"row {i}" for i in range(45)]
        assert (batch["targets_seq2seq"][:, 1:6] == wanted[1:6]).all()
        assert batch["targets_linear"][:, 3].all()


@pytest.mark.parametrize("kind", [lambda row: pd.Series(row), dict, lambda row: pd.DataFrame([row])])
def test_records_of_any_kind(make_dataset, rows_csv, kind):
    class Renamed(Original):
        def _get_record(self, item):
            return kind({"occ1": "smith", "lang": "en", "code1": 5.0, "code2": np.nan})

        def _get_target_linear(self, record):
            return super()._get_target_linear(record)

    class Labels:
        max_num_codes, block_size, max_seq_len, num_classes = 5, 5, 27, [18] * 27

        def transform_label(self, record):
            return np.arange(27.0)

    dataset = make_dataset(rows_csv, Renamed, formatter=Labels(), training=False)
    item = dataset[10]
    assert item["occ1"] == "en[SEP]smith"
    assert item["targets_linear"].nonzero().tolist() == [[5]]
    assert item["targets_seq2seq"].tolist() == list(range(27))


def test_records_may_repair_what_the_files_hold(make_dataset, tmp_path):
    class Repaired(Original):
        def _get_record(self, item):
            record = super()._get_record(item)
            record["code1"] = record["code1"].str.replace("class ", "")
            return record

    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,code1,code2,code3,code4,code5\na,en,class 5,,,,\nb,en,,,,,\n", encoding="utf-8")
    with pytest.raises(UsageError, match="'class 5'"):
        make_dataset(path)
    dataset = make_dataset(path, Repaired, training=False)
    assert dataset[0]["targets_linear"].nonzero().tolist() == [[5]]
    with pytest.raises(ValueError, match="no code in 'code1'"):
        dataset[1]


def test_a_missing_column_of_a_record_is_named(make_dataset, rows_csv):
    class Short(Original):
        def _get_record(self, item):
            return {"occ1": "smith"}

    with pytest.raises(UsageError, match=r"one row with the column 'lang', .* but _get_record gave dict"):
        make_dataset(rows_csv, Short)[0]


def test_getitem(make_dataset, rows_csv):
    class Weighted(Original):
        def __getitem__(self, item):
            return super().__getitem__(item) | {"weight": item + 0.5}

    plain = make_dataset(rows_csv, training=False)
    for batch in batches_of(make_dataset(rows_csv, Weighted, training=False)):
        assert batch["weight"].tolist() == [i + 0.5 for i in range(45)]
        assert batch["occ1"] == [item["occ1"] for item in plain.__getitems__(range(45))]


def test_a_method_of_the_object_itself_counts(make_dataset, rows_csv):
    dataset = make_dataset(rows_csv, training=False)
    assert dataset[0]["occ1"] != "x"
    dataset._prepare_input = lambda occ_descr, lang: "x"
    for batch in (next(iter(DataLoader(dataset, batch_size=9))), dataset.batch(np.arange(9), 0)):
        assert batch["occ1"] == ["x"] * 9


class Unchanged(Original):
    """Overrides everything and changes nothing."""

    def __getitem__(self, item):
        return super().__getitem__(item)

    def _get_record(self, item):
        return super()._get_record(item)

    def _augment_occ_descr_lang(self, occ_descr, lang):
        return super()._augment_occ_descr_lang(occ_descr, lang)

    def _prepare_input(self, occ_descr, lang):
        return super()._prepare_input(occ_descr, lang)

    def _get_target_linear(self, record):
        return super()._get_target_linear(record)


@pytest.mark.parametrize("options", [{"training": False}, {"alt_prob": 0.9, "n_trans": 4}], ids=["plain", "noisy"])
def test_one_by_one_gives_what_a_batch_at_once_gives(make_dataset, rows_csv, options):
    """The same rows, labels and noise, bit for bit, in the batches of our own loader."""
    fast, slow = make_dataset(rows_csv, **options), make_dataset(rows_csv, Unchanged, **options)
    for epoch in (0, 3):
        rows = np.array([44, 3, 3, 0, *range(10, 30)])
        one, other = fast.batch(rows, epoch), slow.batch(rows, epoch)
        for name in (*NAMES, "rows"):
            assert one[name].dtype == other[name].dtype
            assert torch.equal(one[name], other[name])
        for row, classes in zip(other["targets_linear"], one["targets_classes"]):
            assert row.nonzero().flatten().tolist() == sorted(c for c in classes.tolist() if c >= 0)


def test_noise_of_ones_own_is_new_in_each_pass_and_comes_from_torchs_seed(make_dataset, same_rows_csv):
    class Tagged(Original):
        def _augment_occ_descr_lang(self, occ_descr, lang):
            return f"{occ_descr} {random.random()}", lang

    dataset = make_dataset(same_rows_csv, Tagged, alt_prob=0.0, unk_lang_prob=0.0)
    state = random.getstate()

    def two_passes(seed, num_workers):
        torch.manual_seed(seed)
        loader = DataLoader(dataset, batch_size=8, num_workers=num_workers)
        return [[text for batch in loader for text in batch["occ1"]] for _ in range(2)]

    for num_workers in (0, 2):
        first, second = two_passes(1, num_workers)
        assert len({*first, *second}) == 128
        assert two_passes(1, num_workers) == [first, second]
        assert two_passes(2, num_workers)[0] != first
    epochs = [dataset.batch(np.arange(64), epoch)["occ1"] for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2]
    assert len({*epochs[0], *epochs[1]}) == 128
    assert random.getstate() == state  # what else draws from it is not disturbed


def test_random_numbers_of_ones_own_do_not_stand_still_where_our_noise_is_off(make_dataset, same_rows_csv):
    class Tagged(Original):
        def __getitem__(self, item):
            return super().__getitem__(item) | {"tag": random.random()}

    dataset = make_dataset(same_rows_csv, Tagged, alt_prob=0.0, unk_lang_prob=0.0)
    tags = [tag for _ in range(2) for batch in DataLoader(dataset, batch_size=8) for tag in batch["tag"].tolist()]
    assert len(set(tags)) == 128


def test_two_views_of_a_row_differ(make_dataset, same_rows_csv):
    class Views(Original):
        def __getitem__(self, item):
            return super().__getitem__(item) | {"other": super().__getitem__(item)["occ1"]}

    class Texts(Original):
        def _augment_occ_descr_lang(self, occ_descr, lang):
            one, _ = super()._augment_occ_descr_lang(occ_descr, lang)
            other, _ = super()._augment_occ_descr_lang(occ_descr, lang)
            return f"{one}|{other}", lang

    views = make_dataset(same_rows_csv, Views, alt_prob=1.0)
    batch = views.batch(np.arange(64), 0)
    assert sum(a == b for a, b in zip(batch["occ1"], batch["other"])) < 9
    texts = make_dataset(same_rows_csv, Texts, alt_prob=1.0).batch(np.arange(64), 0)["occ1"]
    assert sum(a == b for a, b in (text.partition("[SEP]")[2].split("|") for text in texts)) < 9


def test_parts_work_when_they_are_called(make_dataset, rows_csv):
    dataset = make_dataset(rows_csv, alt_prob=1.0, unk_lang_prob=1.0)
    assert dataset._prepare_input(occ_descr="smed", lang="da") == "da[SEP]smed"
    texts = {dataset._augment_occ_descr_lang(occ_descr="landarbejder", lang="da") for _ in range(20)}
    assert len(texts) > 10
    assert {lang for _, lang in texts} == {"unk"}
    record = dataset._get_record(item=44)
    assert list(record.columns) == ["occ1", "lang", *(f"code{i}" for i in range(1, 6))]
    assert len(record) == 1
    assert dataset._get_record(-1).equals(record)
    linear = dataset._get_target_linear(record=record)
    assert linear.dtype == torch.float32
    assert torch.equal(linear, dataset[44]["targets_linear"])
    assert dataset._setup_mapping(fname_index=None) == {}
    with pytest.raises(IndexError):
        dataset._get_record(45)


def test_what_cannot_be_done_row_by_row_is_said(make_dataset, rows_csv):
    dataset = make_dataset(rows_csv, Unchanged)
    with pytest.raises(UsageError, match="Padding cannot be trimmed"):
        dataset.batch(np.arange(3), 0, trim_padding=True)
    with pytest.raises(UsageError, match="Padding cannot be trimmed"):
        dataset.padded_lengths(np.arange(3), 0)

    class Tuples(Original):
        def __getitem__(self, item):
            return item, "x"

    with pytest.raises(UsageError, match="must return a dict to make batches of, and returned tuple"):
        make_dataset(rows_csv, Tuples).batch(np.arange(3), 0)

    class Ids(Original):
        def _prepare_input(self, occ_descr, lang):
            return [1, 2]

    with pytest.raises(UsageError, match="must return the input text, and returned list"):
        make_dataset(rows_csv, Ids)[0]
