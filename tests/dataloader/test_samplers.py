import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.dataloader.samplers import EvalBatchSampler, TrainBatchSampler

SIZES = {"n": st.integers(1, 60), "batch_size": st.integers(1, 9), "world_size": st.integers(1, 5)}


def train_ranks(n, batch_size, world_size, *, epoch=0, position=0, shuffle=True):
    """The batches of all ranks: a list for each."""
    ranks = []
    for rank in range(world_size):
        sampler = TrainBatchSampler(n, batch_size, 7, rank, world_size, shuffle)
        sampler.set_epoch(epoch)
        sampler.set_position(position)
        ranks.append((sampler, list(sampler)))
    return ranks


def rows_of(ranks):
    return [row for _, batches in ranks for batch in batches if not batch.filler for row in batch.rows.tolist()]


@settings(max_examples=200, deadline=None)
@given(**SIZES)
def test_each_row_occurs_once_and_all_ranks_have_equally_many_batches(n, batch_size, world_size):
    ranks = train_ranks(n, batch_size, world_size)
    assert sorted(rows_of(ranks)) == list(range(n))
    assert {len(batches) for _, batches in ranks} == {len(sampler) for sampler, _ in ranks}
    assert len({len(batches) for _, batches in ranks}) == 1
    for _, batches in ranks:
        assert all(1 <= len(batch.rows) <= batch_size + 1 for batch in batches)
        # Only where rows are fewer than ranks must a rank do without.
        assert n < world_size or not any(batch.filler for batch in batches)


@settings(max_examples=200, deadline=None)
@given(**SIZES, other_world=st.integers(1, 5), data=st.data())
def test_a_resumed_epoch_has_the_rows_that_are_left(n, batch_size, world_size, other_world, data):
    whole = train_ranks(n, batch_size, world_size, epoch=3)
    sampler, batches = whole[0]
    done = data.draw(st.integers(0, len(batches)))
    position = sampler.rows_done(done)
    left = [row for _, batches in whole for b in batches[done:] if not b.filler for row in b.rows.tolist()]

    resumed = train_ranks(n, batch_size, world_size, epoch=3, position=position)
    for (_, whole_batches), (_, tail) in zip(whole, resumed):
        assert [b.rows.tolist() for b in tail] == [b.rows.tolist() for b in whole_batches[done:]]
        assert [b.filler for b in tail] == [b.filler for b in whole_batches[done:]]

    elsewhere = train_ranks(n, batch_size, other_world, epoch=3, position=position)
    assert sorted(rows_of(elsewhere)) == sorted(left)
    assert {len(batches) for _, batches in elsewhere} == {sampler.batches_from(position) for sampler, _ in elsewhere}
    for sampler, batches in elsewhere:
        assert sampler.rows_done(len(batches), start=position) == n


@settings(max_examples=100, deadline=None)
@given(**SIZES)
def test_steps_take_the_permutation_in_order(n, batch_size, world_size):
    (_, order), *_ = train_ranks(n, n, 1)
    order = order[0].rows.tolist()
    ranks = train_ranks(n, batch_size, world_size)
    group = batch_size * world_size
    for step in range(n // group):
        taken = [row for _, batches in ranks for row in batches[step].rows[:batch_size].tolist()]
        assert taken == order[step * group : (step + 1) * group]


def test_one_process_keeps_the_last_short_batch():
    batches = list(TrainBatchSampler(10, 4, seed=1))
    assert [len(batch.rows) for batch in batches] == [4, 4, 2]
    assert all(batch.rows.dtype == np.int64 for batch in batches)


def test_too_few_rows_for_a_step_of_their_own_join_the_one_before():
    ranks = train_ranks(13, 4, 3)
    assert [[len(b.rows) for b in batches] for _, batches in ranks] == [[5], [4], [4]]


def test_fewer_rows_than_ranks_make_fillers():
    ranks = train_ranks(2, 4, 3)
    assert [[b.filler for b in batches] for _, batches in ranks] == [[False], [False], [True]]
    assert all(len(b.rows) == 1 for _, batches in ranks for b in batches)


def test_order_depends_on_seed_and_epoch_only():
    def order(seed, epoch):
        sampler = TrainBatchSampler(50, 50, seed)
        sampler.set_epoch(epoch)
        (batch,) = sampler
        assert batch.epoch == epoch
        return batch.rows.tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_without_shuffling_rows_keep_their_order():
    assert rows_of(train_ranks(7, 3, 1, shuffle=False)) == list(range(7))


def test_a_position_counts_for_one_iteration_and_survives_an_iterator_that_is_not_used():
    sampler = TrainBatchSampler(10, 3, seed=1)
    whole = [b.rows.tolist() for b in sampler]
    sampler.set_position(6)
    iter(sampler)  # as DataLoader does
    assert [b.rows.tolist() for b in sampler] == whole[2:]
    assert [b.rows.tolist() for b in sampler] == whole
    assert len(sampler) == 4


@settings(max_examples=100, deadline=None)
@given(**SIZES)
def test_evaluation_deals_out_the_batches_of_a_single_process(n, batch_size, world_size):
    single = [b.rows.tolist() for b in EvalBatchSampler(n, batch_size)]
    assert [row for batch in single for row in batch] == list(range(n))
    for rank in range(world_size):
        sampler = EvalBatchSampler(n, batch_size, rank, world_size)
        assert [b.rows.tolist() for b in sampler] == single[rank::world_size]
        assert len(sampler) == len(single[rank::world_size])


def test_evaluation_of_chosen_rows():
    assert [b.rows.tolist() for b in EvalBatchSampler(np.array([3, 5, 9]), 2)] == [[3, 5], [9]]


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="batch_size is 0"):
        TrainBatchSampler(5, 0, seed=1)
    with pytest.raises(ValueError, match="at least one row"):
        TrainBatchSampler(0, 5, seed=1)
    with pytest.raises(ValueError, match="rank 2 does not exist among 2"):
        EvalBatchSampler(5, 5, rank=2, world_size=2)
    with pytest.raises(ValueError, match="Position 6"):
        TrainBatchSampler(5, 5, seed=1).set_position(6)
