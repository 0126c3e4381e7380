import subprocess
import sys

import numpy as np
import pytest
import torch

import histocc.dataloader
from histocc.dataloader import (
    BatchIndex,
    EvalBatchSampler,
    TrainBatchSampler,
    Workers,
    evaluation_rows,
    make_loader,
)


class Rows:
    """A data set whose batches say what they were asked for."""

    def __len__(self):
        return 11

    def batch(self, rows, epoch):
        return {"rows": torch.from_numpy(rows), "epoch": torch.tensor(epoch)}


def batches_of(loader):
    return [batch["rows"].tolist() for batch in loader]


def rows_of(loader):
    return [row for batch in batches_of(loader) for row in batch]


def test_a_training_loader_follows_its_sampler():
    loader = make_loader(Rows(), TrainBatchSampler(11, 4, seed=1))
    loader.sampler.set_epoch(5)
    loader.sampler.set_position(4)
    assert [int(batch["epoch"]) for batch in loader] == [5, 5]
    rows = rows_of(loader)
    assert sorted(rows) == list(range(11))
    assert rows != list(range(11))
    assert rows_of(make_loader(Rows(), TrainBatchSampler(11, 4, seed=1, shuffle=False))) == list(range(11))


def test_any_sampler_of_batches_will_do():
    order = [BatchIndex(3, np.array([5, 5])), BatchIndex(4, np.array([0]))]
    batches = list(make_loader(Rows(), order))
    assert batches_of(batches) == [[5, 5], [0]]
    assert [int(batch["epoch"]) for batch in batches] == [3, 4]


def test_fillers_are_marked():
    loaders = [make_loader(Rows(), TrainBatchSampler(11, 20, 42, rank, world_size=12)) for rank in range(12)]
    (last,) = loaders[11]
    assert last["filler"].item() is True
    assert all("filler" not in batch for loader in loaders[:11] for batch in loader)


@pytest.mark.parametrize("number", [0, 1])
def test_evaluation_scores_each_row_once(number):
    loaders = [make_loader(Rows(), EvalBatchSampler(11, 2, rank, 3), Workers(number)) for rank in range(3)]
    assert [batches_of(loader) for loader in loaders] == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10]]]
    assert [len(loader) for loader in loaders] == [2, 2, 2]


def test_a_capped_evaluation_takes_the_same_rows_each_time():
    chosen = evaluation_rows(11, 5, seed=1).tolist()
    assert len(set(chosen)) == 5
    assert chosen == sorted(chosen) == evaluation_rows(11, 5, seed=1).tolist()
    assert chosen != evaluation_rows(11, 5, seed=2).tolist()
    assert rows_of(make_loader(Rows(), EvalBatchSampler(np.array(chosen), 2))) == chosen
    for cap in (None, 11, 100):
        assert evaluation_rows(11, cap).tolist() == list(range(11))
    with pytest.raises(ValueError, match=r"max_samples is 0, but an evaluation needs a row \(--max-val-samples\)"):
        evaluation_rows(11, 0)


def test_names_are_imported_on_first_use():
    assert set(histocc.dataloader.__all__) <= set(dir(histocc.dataloader))
    assert histocc.dataloader.make_loader is make_loader
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        histocc.dataloader.nonsense  # noqa: B018
    code = "import sys, histocc.dataloader; assert not {'pandas', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
