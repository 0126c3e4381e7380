import subprocess
import sys

import numpy as np
import pytest
import torch

import histocc.dataloader
from histocc.dataloader import make_eval_loader, make_train_loader


class Rows:
    """A data set whose batches say what they were asked for."""

    def __len__(self):
        return 11

    def batch(self, rows, epoch):
        return {"rows": torch.from_numpy(rows), "epoch": torch.tensor(epoch)}


def test_a_training_loader_follows_its_sampler():
    loader = make_train_loader(Rows(), 4, seed=1)
    loader.sampler.set_epoch(5)
    loader.sampler.set_position(4)
    assert [int(batch["epoch"]) for batch in loader] == [5, 5]
    rows = [row for batch in loader for row in batch["rows"].tolist()]
    assert sorted(rows) == list(range(11))
    assert rows != list(range(11))
    assert [row for b in make_train_loader(Rows(), 4, shuffle=False) for row in b["rows"].tolist()] == list(range(11))


def test_fillers_are_marked():
    loaders = [make_train_loader(Rows(), 20, rank=rank, world_size=12) for rank in range(12)]
    (last,) = loaders[11]
    assert last["filler"].item() is True
    assert all("filler" not in batch for loader in loaders[:11] for batch in loader)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_evaluation_scores_each_row_once(num_workers):
    loaders = [make_eval_loader(Rows(), 2, rank=r, world_size=3, num_workers=num_workers) for r in range(3)]
    batches = [[batch["rows"].tolist() for batch in loader] for loader in loaders]
    assert batches == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10]]]
    assert [len(loader) for loader in loaders] == [2, 2, 2]


def test_a_capped_evaluation_takes_the_same_rows_each_time():
    def rows(**options):
        return np.concatenate([batch["rows"] for batch in make_eval_loader(Rows(), 2, **options)]).tolist()

    assert len(set(rows(max_samples=5))) == 5
    assert rows(max_samples=5) == rows(max_samples=5) == sorted(rows(max_samples=5))
    assert rows(max_samples=5, seed=1) != rows(max_samples=5, seed=2)
    assert rows(max_samples=11) == rows(max_samples=100) == list(range(11))
    with pytest.raises(ValueError, match="max_samples is 0"):
        make_eval_loader(Rows(), 2, max_samples=0)


def test_names_are_imported_on_first_use():
    assert set(histocc.dataloader.__all__) <= set(dir(histocc.dataloader))
    assert histocc.dataloader.make_eval_loader is make_eval_loader
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        histocc.dataloader.nonsense  # noqa: B018
    code = "import sys, histocc.dataloader; assert not {'pandas', 'transformers'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
