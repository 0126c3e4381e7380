import hashlib
import json
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from histocc.dataloader import (
    Descriptions,
    OccDatasetMixerInMemMultipleFiles,
    TrainBatchSampler,
    Workers,
    make_loader,
)
from histocc.errors import UsageError
from histocc.formatter import construct_general_purpose_formatter, hisco_blocky5, occ1950_blocky1, occ1950_blocky2
from tests.benchmarks.data_path import write_table
from tests.oracles.plain_rows import PlainRows


def hisco(paths, **options):
    return OccDatasetMixerInMemMultipleFiles(paths, hisco_blocky5(), None, 64, 1919, **options)


def general(path, target_cols=("a", "b"), key=None, **options):
    formatter = construct_general_purpose_formatter(3, list(target_cols))
    return OccDatasetMixerInMemMultipleFiles(
        path, formatter, None, 32, len(key), target_cols=list(target_cols), map_code_label=key, **options
    )


@pytest.fixture
def rows_csv(golden):
    return golden / "dataset_rows.csv"


@pytest.fixture
def coded_csv(tmp_path):
    path = tmp_path / "coded.csv"
    path.write_text("occ1,lang,a,b\nfisker,da,01,NA\nhunter,en,nan,\nsmed,da,1,01\n", encoding="utf-8")
    return path


KEY = {"01": 0, "NA": 1, "nan": 2, "1": 3}


def assert_equal_items(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[name].dtype
            torch.testing.assert_close(value, other[name], rtol=0, atol=0)
        else:
            assert value == other[name]


def test_items_are_those_of_the_original(golden, rows_csv):
    dataset = hisco([rows_csv], training=False)
    expected = json.loads((golden / "dataset_expected.json").read_text(encoding="utf-8"))
    assert len(dataset) == len(expected)
    for item, want in zip(map(dataset.__getitem__, range(len(dataset))), expected):
        assert set(item) == {"occ1", "input_ids", "attention_mask", "targets_seq2seq", "targets_linear"}
        assert item["occ1"] == want["occ1"]
        assert item["input_ids"].tolist() == want["input_ids"]
        assert item["attention_mask"].tolist() == [1] * want["attention_mask_sum"] + [0] * (
            64 - want["attention_mask_sum"]
        )
        assert item["targets_seq2seq"].tolist() == want["targets_seq2seq"]
        assert torch.nonzero(item["targets_linear"]).flatten().tolist() == want["targets_linear_on"]
        assert item["targets_linear"].shape == (1919,)
        assert item["targets_linear"].dtype == torch.float32
        assert item["input_ids"].dtype == item["attention_mask"].dtype == item["targets_seq2seq"].dtype == torch.int64


def test_items_are_those_of_the_plain_implementation(rows_csv):
    dataset = hisco(rows_csv, training=False)
    plain = PlainRows(dataset.frame, hisco_blocky5(), 64, 1919, training=False)
    for i in range(len(dataset)):
        assert_equal_items(dataset[i], plain[i])


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_agrees_with_its_items(rows_csv, training):
    dataset = hisco([rows_csv, rows_csv], training=training)
    rows = np.array([89, 3, 3, 0, 44])
    batch = dataset.batch(rows, 2)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in batch.items()} == {
        "input_ids": (torch.int64, (5, 64)),
        "attention_mask": (torch.int64, (5, 64)),
        "targets_seq2seq": (torch.int64, (5, 27)),
        "targets_classes": (torch.int64, (5, 5)),
        "rows": (torch.int64, (5,)),
    }
    assert batch["rows"].tolist() == rows.tolist()
    assert not torch.equal(batch["input_ids"][1], batch["input_ids"][0])
    for i, row in enumerate(rows.tolist()):
        item = dataset[row]
        assert torch.equal(item["targets_seq2seq"], batch["targets_seq2seq"][i])
        for name in ("input_ids", "attention_mask"):
            # Items have a noise of their own.
            assert training or torch.equal(item[name], batch[name][i])
        classes = [c for c in batch["targets_classes"][i].tolist() if c >= 0]
        assert torch.nonzero(item["targets_linear"]).flatten().tolist() == sorted(classes)
        assert [ord(c) for c in item["occ1"]][:62] == item["input_ids"][1 : item["attention_mask"].sum() - 1].tolist()


@pytest.mark.parametrize(
    ("noise", "trim", "digest"),
    [
        ({}, False, "8c25ce0ec3bb05ffa0a111859d8a34173250d655b399a46801ef491457a56136"),
        ({"alt_prob": 1.0, "n_trans": 5}, True, "1bed8c62abae017bab0893ea2758df51f6c766e92a23e3b534b19f1a11cb0c1f"),
    ],
)
def test_order_and_noise_stay_those_of_earlier_versions(rows_csv, noise, trim, digest):
    """A run that an earlier version began goes on with the same batches."""
    dataset = hisco(rows_csv, **noise)
    sampler = TrainBatchSampler(len(dataset), 8, seed=42)
    seen = hashlib.sha256()
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for index in sampler:
            batch = dataset.batch(index.rows, index.epoch, trim_padding=trim)
            for name in ("input_ids", "attention_mask", "targets_seq2seq", "targets_classes", "rows"):
                seen.update(batch[name].numpy().tobytes())
    assert seen.hexdigest() == digest


def test_training_changes_text_and_language_as_asked(rows_csv):
    dataset = hisco(rows_csv, alt_prob=0.0, unk_lang_prob=1.0)
    assert dataset[44]["occ1"] == "unk[SEP]landarbejder"  # stripped of brackets and quotes, though not attacked
    dataset = hisco(rows_csv, alt_prob=1.0, unk_lang_prob=0.0)
    plain = hisco(rows_csv, training=False)
    assert sum(dataset[i]["occ1"] != plain[i]["occ1"] for i in range(45)) > 38
    assert all(dataset[i]["occ1"].startswith(plain[i]["occ1"].split("[SEP]")[0] + "[SEP]") for i in range(45))


def test_inserted_words_come_from_the_data_or_the_table_of_frequencies(rows_csv):
    table = pd.DataFrame({"word": ["ÆØÅ"], "freq": [1.0]})

    def shown(dataset):
        return " ".join(item["occ1"] for item in dataset.__getitems__(range(45)))

    assert "ÆØÅ" in shown(hisco(rows_csv, alt_prob=1.0, word_freq_table=table))
    assert "ÆØÅ" not in shown(hisco(rows_csv, alt_prob=1.0))
    assert shown(hisco(rows_csv, alt_prob=1.0)) != shown(hisco(rows_csv, alt_prob=1.0, seed=43))


def test_a_plain_data_loader_can_collate_the_items(rows_csv):
    dataset = hisco(rows_csv, training=False)
    batches = list(DataLoader(dataset, batch_size=20))
    assert [len(batch["occ1"]) for batch in batches] == [20, 20, 5]
    for name in ("input_ids", "targets_linear"):
        assert torch.equal(torch.cat([batch[name] for batch in batches])[7], dataset[7][name])


def test_rows_count_from_the_end_too_and_stop_at_both(rows_csv):
    dataset = hisco(rows_csv, training=False)
    assert_equal_items(dataset[-1], dataset[44])
    for row in (45, -46):
        with pytest.raises(IndexError, match=f"row {row} of 45"):
            dataset[row]


def test_the_frame_gives_the_same_labels(rows_csv, coded_csv):
    for dataset in (hisco(rows_csv, training=False), general(coded_csv, key=KEY, training=False)):
        frame = dataset.frame
        assert list(frame.columns) == ["occ1", "lang", *dataset.target_cols]
        for i in range(len(dataset)):
            tokens = dataset.formatter.transform_label(frame.iloc[i])
            assert dataset[i]["targets_seq2seq"].tolist() == tokens.tolist()
            assert dataset[i]["occ1"] == f"{frame['lang'].iloc[i]}[SEP]{frame['occ1'].iloc[i]}"


def test_codes_of_a_key_of_ones_own(coded_csv):
    dataset = general(coded_csv, key=KEY, training=False)
    assert dataset.map_code_label is KEY
    on = [torch.nonzero(dataset[i]["targets_linear"]).flatten().tolist() for i in range(3)]
    assert on == [[0, 1], [2], [0, 3]]  # leading zeros and codes spelt like missing values are kept apart
    assert dataset.batch(np.arange(3), 0)["targets_classes"].tolist() == [[0, 1], [2, -1], [3, 0]]
    assert dataset.formatter.clean_pred(dataset[2]["targets_seq2seq"]) == "1&01"


def test_fewer_target_columns_than_blocks_leave_blocks_empty(coded_csv):
    formatter = construct_general_purpose_formatter(3, ["a", "b"])
    dataset = OccDatasetMixerInMemMultipleFiles(
        coded_csv, formatter, None, 32, 4, training=False, target_cols=["a"], map_code_label=KEY
    )
    assert dataset[0]["targets_seq2seq"].tolist() == formatter.transform_label("01").tolist()
    assert dataset.batch(np.arange(3), 0)["targets_classes"].tolist() == [[0, -1], [2, -1], [3, -1]]


def test_occ1950_codes_are_their_own_classes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,OCC1950_1,OCC1950_2\na,en,043,720\nb,en,999,\n", encoding="utf-8")
    dataset = OccDatasetMixerInMemMultipleFiles(
        path, occ1950_blocky2(), None, 32, 1000, training=False, target_cols="occ1950"
    )
    assert dataset.batch(np.arange(2), 0)["targets_classes"].tolist() == [[43, 720], [999, -1]]
    assert dataset[0]["targets_seq2seq"].tolist() == occ1950_blocky2().transform_label("043&720").tolist()
    single = OccDatasetMixerInMemMultipleFiles(
        path, occ1950_blocky1(), None, 32, 1000, training=False, target_cols="occ1950"
    )
    assert single.batch(np.arange(2), 0)["targets_classes"].tolist() == [[43], [999]]


def test_parquet_gives_the_same_rows_as_csv(rows_csv, tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.read_csv(rows_csv, keep_default_na=False, na_values={f"code{i}": [""] for i in range(1, 6)})
    frame.to_parquet(tmp_path / "t.parquet")  # code1 as integers, code2 as floats
    csv, parquet = hisco(rows_csv, training=False), hisco(tmp_path / "t.parquet", training=False)
    pd.testing.assert_frame_equal(csv.frame, parquet.frame)
    assert_equal_items(csv[41], parquet[41])


def test_descriptions_join_the_text_in_training(coded_csv):
    texts = {"01": {"da": "Fanger fisk", "en": "Catches fish"}, "1": {"": "Smithy"}}
    options = {"alt_prob": 0.0, "unk_lang_prob": 0.0, "key": KEY}
    dataset = general(coded_csv, descriptions=Descriptions(texts, prob=1.0), **options)
    assert [dataset[i]["occ1"] for i in range(3)] == [
        "da[SEP]fisker [DESC: Fanger fisk",  # brackets at the ends are stripped from the whole
        "en[SEP]hunter",
        "da[SEP]smed [DESC: Smithy",
    ]
    half = general(coded_csv, descriptions=Descriptions(texts, prob=0.5, template="{desc} {occ}"), **options)
    ids = [half.batch(np.array([2, 0]), epoch)["input_ids"][1] for epoch in range(400)]
    seen = ["".join(map(chr, row[1:26].tolist())).rstrip("\0\ue001") for row in ids]
    torch.manual_seed(0)
    for shown in (seen, [half[0]["occ1"] for _ in range(400)]):
        assert set(shown) == {"da[SEP]fisker", "da[SEP]Fanger fisk fisker"}
        assert shown.count("da[SEP]fisker") == pytest.approx(200, abs=50)
    calm = general(coded_csv, descriptions=Descriptions(texts, prob=1.0), training=False, key=KEY)
    assert calm[0]["occ1"] == "da[SEP]fisker"


def test_what_cannot_work_is_refused(rows_csv, coded_csv):
    with pytest.raises(UsageError, match="target_cols is 'hisko'"):
        hisco(rows_csv, target_cols="hisko")
    with pytest.raises(UsageError, match="room for 1 to 2 codes"):
        OccDatasetMixerInMemMultipleFiles(
            coded_csv, construct_general_purpose_formatter(3, ["a", "b"]), None, 32, 4, target_cols=["a", "b", "a"]
        )
    with pytest.raises(UsageError, match="max_input_len is 1"):
        OccDatasetMixerInMemMultipleFiles(rows_csv, hisco_blocky5(), None, 1, 1919)
    with pytest.raises(UsageError, match=r"a class outside 0\.\.99"):
        OccDatasetMixerInMemMultipleFiles(rows_csv, hisco_blocky5(), None, 64, 100)


def test_blank_descriptions_train(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,code1,code2,code3,code4,code5\n,en,5,,,,\n ,,5,,,,\n", encoding="utf-8")
    dataset = hisco(path, alt_prob=1.0)  # no words to insert here
    assert dataset.batch(np.arange(2), 0)["input_ids"].shape == (2, 64)
    assert hisco(path, training=False)[1]["occ1"] == "unk[SEP] "


def test_rows_without_a_language_are_of_an_unknown_one_however_they_are_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("occ1,lang,code1,code2,code3,code4,code5\na,en,5,,,,\nb,,5,,,,\nc, ,5,,,,\nd,unk,5,,,,\n")
    dataset = hisco(path, training=False)
    assert dataset.languages == ["en", "unk"]
    assert dataset.notes == ["rows without a language, taken for unk: 2"]
    assert [dataset[i]["occ1"] for i in range(4)] == ["en[SEP]a", "unk[SEP]b", "unk[SEP]c", "unk[SEP]d"]

    class OneByOne(OccDatasetMixerInMemMultipleFiles):
        def _get_record(self, item):
            return super()._get_record(item).assign(lang=None)

    own = OneByOne(path, hisco_blocky5(), None, 64, 1919, training=False)
    assert own[0]["occ1"] == "unk[SEP]a"
    dataset.frame.loc[0, "lang"] = np.nan
    assert dataset[0]["occ1"] == "unk[SEP]a"
    assert dataset.languages == ["unk"]


def test_a_data_set_can_be_pickled(rows_csv):
    dataset = hisco(rows_csv)
    copy = pickle.loads(pickle.dumps(dataset))
    assert_equal_items(copy.batch(np.arange(9), 1), dataset.batch(np.arange(9), 1))


def test_rows_take_little_memory_beyond_their_text(tmp_path):
    rows = 60_000
    path = tmp_path / "t.csv"
    text_bytes = write_table(path, rows)
    hisco(path)  # what imports and caches take
    tracemalloc.start()
    dataset = hisco(path)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(dataset) == rows
    assert (held - text_bytes) / rows < 64


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(rows_csv, num_workers):
    dataset = hisco(rows_csv, alt_prob=1.0)

    def epoch_of(loader, epoch, position=0):
        loader.sampler.set_epoch(epoch)
        loader.sampler.set_position(position)
        return list(loader)

    workers = Workers(num_workers, prefetch_factor=3, persistent=True)
    alone = make_loader(dataset, TrainBatchSampler(len(dataset), 7, seed=3))
    helped = make_loader(dataset, TrainBatchSampler(len(dataset), 7, seed=3), workers)
    assert len(alone) == len(helped) == 7
    for epoch, position in ((0, 0), (1, 14), (2, 0)):
        expected = epoch_of(alone, epoch, position)
        found = epoch_of(helped, epoch, position)
        assert len(found) == len(expected) == 7 - position // 7
        for one, other in zip(found, expected):
            assert_equal_items(one, other)
