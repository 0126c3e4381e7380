"""Batches of about equally long rows, padded no further than they need."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.dataloader import OccDatasetMixerInMemMultipleFiles, make_loader
from histocc.dataloader.samplers import TrainBatchSampler
from histocc.formatter import hisco_blocky5

ROWS, BATCH, LENGTH = 500, 3, 64


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("trimmed") / "rows.csv"
    lines = [f"en,{'x' * rng.integers(1, 70)},{i},,,," for i in range(ROWS)]
    path.write_text("\n".join(["lang,occ1,code1,code2,code3,code4,code5", *lines]))
    return OccDatasetMixerInMemMultipleFiles(path, hisco_blocky5(), None, LENGTH, 1919)


def lengths(rows, epoch):
    return (rows * 7 + epoch) % 5


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 400),
    batch_size=st.integers(1, 5),
    worlds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    data=st.data(),
)
def test_an_epoch_has_each_row_once_also_when_it_goes_on_with_other_processes(n, batch_size, worlds, data):
    def batches(world_size, position=0):
        ranks = []
        for rank in range(world_size):
            sampler = TrainBatchSampler(n, batch_size, 7, rank, world_size, lengths=lengths)
            sampler.set_epoch(2)
            sampler.set_position(position)
            ranks.append((sampler, list(sampler)))
        return ranks

    def rows(ranks, first=0):
        return [row for _, parts in ranks for b in parts[first:] if not b.filler for row in b.rows.tolist()]

    whole = batches(worlds[0])
    assert sorted(rows(whole)) == list(range(n))
    done = data.draw(st.integers(0, len(whole[0][1])))
    position = whole[0][0].rows_done(done)
    resumed = batches(worlds[0], position)
    for (_, parts), (_, rest) in zip(whole, resumed):
        assert [b.rows.tolist() for b in rest] == [b.rows.tolist() for b in parts[done:]]
    assert sorted(rows(batches(worlds[1], position))) == sorted(rows(whole, done))


def test_rows_of_a_batch_are_about_equally_long_and_batches_come_in_any_order():
    sampler = TrainBatchSampler(6400, 10, 1, lengths=lambda rows, epoch: rows)
    batches = [batch.rows for batch in sampler]
    # Of 640 rows that are sorted together, the ten of a batch span a small part.
    assert np.mean([batch.max() - batch.min() for batch in batches]) < 6400 / 40
    means = np.array([batch.mean() for batch in batches])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2
    other = TrainBatchSampler(6400, 10, 2, lengths=lambda rows, epoch: rows)
    assert any((a.rows != b).any() for a, b in zip(other, batches))


def test_only_padding_is_cut_off(dataset):
    loader = make_loader(dataset, TrainBatchSampler(ROWS, BATCH, seed=42, lengths=dataset.padded_lengths))
    loader.sampler.set_epoch(1)
    seen = []
    for batch in loader:
        rows, length = batch["rows"].numpy(), batch["input_ids"].shape[1]
        full = dataset.batch(rows, epoch=1)
        seen.append((length, rows))
        assert length % 16 == 0
        assert length - 16 < int(full["attention_mask"].sum(1).max()) <= length
        for name in ("input_ids", "attention_mask"):
            assert torch.equal(batch[name], full[name][:, :length])
            assert not full[name][:, length:].any()
        assert torch.equal(batch["targets_seq2seq"], full["targets_seq2seq"])
    assert sorted(np.concatenate([rows for _, rows in seen]).tolist()) == list(range(ROWS))
    trimmed = sum(length * len(rows) for length, rows in seen)
    assert trimmed < 1.02 * dataset.padded_lengths(np.arange(ROWS), 1).sum()


def test_a_length_that_is_no_multiple_is_the_limit(dataset):
    short = copy.copy(dataset)
    short.max_input_len = 50
    assert set(short.padded_lengths(np.arange(ROWS), 0)) == {16, 32, 48, 50}
    assert short.batch(np.arange(20), 0, trim_padding=True)["input_ids"].shape == (20, 50)


def test_the_lengths_are_those_of_the_augmented_texts(dataset):
    # Noise around a text makes it longer: lengths without it would leave batches with much padding.
    differs = dataset.padded_lengths(np.arange(ROWS), 0) != dataset.padded_lengths(np.arange(ROWS), 1)
    assert 0.01 < differs.mean() < 0.5
