"""A torch DataLoader of one's own: each pass draws new noise from torch's seed."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, Subset

from histocc.dataloader import TrainBatchSampler, make_loader
from histocc.loss import BlockOrderInvariantLoss, LossMixer
from histocc.seq2seq_mixer_engine import train

NOISY = {"alt_prob": 1.0, "n_trans": 3, "unk_lang_prob": 0.5}


def texts_of(loader):
    return [text for batch in loader for text in batch["occ1"]]


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}], ids=str)
def test_each_pass_draws_new_noise_from_torchs_seed(make_dataset, same_rows_csv, workers):
    def two_passes(seed):
        torch.manual_seed(seed)
        loader = DataLoader(make_dataset(same_rows_csv, **NOISY), batch_size=8, shuffle=True, **workers)
        return texts_of(loader), texts_of(loader)

    first, second = two_passes(1)
    # Three transformations of one text seldom give the same twice: repeated noise would repeat whole batches.
    assert len(set(first)) > 55
    assert len(set(first) & set(second)) < 9
    assert two_passes(1) == (first, second)
    assert set(two_passes(2)[0]) != set(first)


def test_noise_reaches_the_model_through_the_engine(make_dataset, same_rows_csv):
    class Recorder(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(18))
            self.flat_bias = nn.Parameter(torch.zeros(1919))
            self.seen = []

        def forward(self, input_ids, attention_mask, target, target_mask, target_padding_mask):
            self.seen += map(tuple, input_ids.tolist())
            rows, length = target.shape
            return self.bias.expand(rows, length, 18), self.flat_bias.expand(rows, 1919)

    model = Recorder()
    torch.manual_seed(0)
    loader = DataLoader(make_dataset(same_rows_csv, **NOISY), batch_size=16, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss_fn = LossMixer(BlockOrderInvariantLoss(1), nn.BCEWithLogitsLoss())
    train(model, {"data_loader_train": loader}, loss_fn, optimizer, torch.device("cpu"), None, None, 2 * len(loader))
    assert len(model.seen) == 128
    assert len(set(model.seen[:64]) & set(model.seen[64:])) < 9


def test_a_row_drawn_twice_has_a_noise_of_its_own_each_time(make_dataset, same_rows_csv):
    dataset = make_dataset(same_rows_csv, **NOISY)
    torch.manual_seed(0)
    texts = [item["occ1"] for item in dataset.__getitems__([3] * 64)]
    assert len(set(texts)) > 55
    subset = Subset(dataset, range(2))
    sampler = RandomSampler(subset, replacement=True, num_samples=64)
    assert len(set(texts_of(DataLoader(subset, batch_size=64, sampler=sampler)))) > 55
    assert len({dataset[0]["occ1"] for _ in range(64)}) > 55


def test_without_noise_torchs_generator_is_left_alone(make_dataset, rows_csv):
    """Order and dropout are then those of the original, which draws noise from Python's generator."""

    def states(dataset):
        torch.manual_seed(0)
        texts = texts_of(DataLoader(dataset, batch_size=8, shuffle=True))
        return texts, torch.rand(3).tolist()

    calm = states(make_dataset(rows_csv, training=False))
    still = make_dataset(rows_csv, alt_prob=0.0, unk_lang_prob=0.0)
    texts, after = states(still)
    assert [text.replace("[SEP][", "[SEP]").rstrip("'[]") for text in calm[0]] == texts
    assert after == calm[1]
    assert states(make_dataset(rows_csv, alt_prob=0.0, unk_lang_prob=1.0))[1] != calm[1]


def test_our_own_loader_does_not_look_at_torchs_seed(make_dataset, rows_csv):
    dataset = make_dataset(rows_csv, **NOISY)

    def epoch(number, seed):
        torch.manual_seed(seed)
        loader = make_loader(dataset, TrainBatchSampler(len(dataset), 8, seed=42))
        loader.sampler.set_epoch(number)
        return torch.cat([batch["input_ids"] for batch in loader])

    assert torch.equal(epoch(0, 1), epoch(0, 2))
    assert not torch.equal(epoch(0, 1), epoch(1, 1))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_is_the_same_in_every_pass(make_dataset, rows_csv, num_workers):
    loader = DataLoader(make_dataset(rows_csv, training=False), batch_size=8, num_workers=num_workers)
    assert texts_of(loader) == texts_of(loader)
