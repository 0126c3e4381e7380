"""The flat classifier's data as scripts of the original ask for it."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from histocc.dataloader import load_data, resample, train_test_val
from histocc.errors import UsageError
from histocc.formatter import hisco_blocky5


def frame(*counts):
    codes = np.repeat(np.arange(len(counts)), counts)
    return pd.DataFrame({"code1": codes, "row": np.arange(len(codes))})


def test_resample_adds_no_rows_unless_asked():
    found = resample(frame(50, 20, 3))
    assert found["code1"].value_counts().to_dict() == {0: 20, 1: 20, 2: 3}
    assert found["row"].is_unique
    assert len(resample(df=frame(50, 20, 3), downsample_top1=False)) == 73
    found = resample(frame(50, 20, 3), True, 5)
    assert found["code1"].value_counts().to_dict() == {0: 20, 1: 20, 2: 3 + 5}


def test_shares_of_the_split():
    data = frame(1000)
    sizes = {}
    for options in ((), (False, 30), (False, 10**5, 0.2), (False, 10**5, 0.2, 0.25)):
        parts = train_test_val(data, *options)
        assert sorted(pd.concat(parts)["row"]) == list(range(1000))
        sizes[options] = tuple(map(len, parts))
    assert list(sizes.values()) == [(950, 25, 25), (970, 15, 15), (800, 100, 100), (800, 150, 50)]
    same = train_test_val(data, verbose=False, max_testval=10**5, testval_fraction=0.2, test_size=0.25)
    assert tuple(map(len, same)) == sizes[(False, 10**5, 0.2, 0.25)]


def test_parts_are_those_of_scikit_learn():
    """Its `train_test_split(random_state=20)` twice: the first rows of a permutation, rounded up, are the test part."""

    def split(rows, share):
        order = np.random.RandomState(20).permutation(len(rows))
        size = math.ceil(share * len(rows))
        return rows[order[size:]], rows[order[:size]]

    train, aside = split(np.arange(333), 0.11)
    wanted = (train, *split(aside, 0.3))
    found = train_test_val(frame(333), testval_fraction=0.11, test_size=0.3)
    assert [part["row"].tolist() for part in found] == [part.tolist() for part in wanted]


@pytest.mark.parametrize("options", [{"testval_fraction": 0}, {"testval_fraction": 1.5}, {"test_size": 1}])
def test_shares_that_make_no_sense(options):
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        train_test_val(frame(100), **options)


def test_a_part_without_rows():
    with pytest.raises(UsageError, match=r"100 rows are too few: .* leaves none for validation"):
        train_test_val(frame(100), max_testval=1)


def test_load_data_by_position_and_by_name(tokenizer):
    data = load_data("Multilingual_CANINE", True, 0, 2, 32, 0.1, 16, False, True, tokenizer, "", None)
    assert data["tokenizer"] is tokenizer
    names = load_data(
        model_domain="Multilingual_CANINE", upsample_below=0, sample_size=2, max_len=32, toyload=True, model_size=""
    )
    assert type(names["tokenizer"]) is type(tokenizer)
    batches = [next(iter(each["data_loader_val"])) for each in (data, names)]
    assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])


def test_load_data_refuses_what_it_cannot_honour():
    with pytest.raises(UsageError, match=r"takes no formatter(.|\n)*the tokenizer object gives others"):
        load_data(toyload=True, formatter=hisco_blocky5(), tokenizer=object())


def test_a_plain_loader_over_the_rows_draws_new_noise(tmp_path, tokenizer):
    path = tmp_path / "t.csv"
    rows = ["occ1,lang,code1,code2,code3,code4,code5", *["blacksmith and farmer,en,5,,,,"] * 60]
    path.write_text("\n".join(rows), encoding="utf-8")
    data = load_data(
        upsample_below=0, downsample_top1=False, max_len=64, alt_prob=1.0, tokenizer=tokenizer, train_data=path
    )
    dataset = data["data_loader_train_attack"].dataset.dataset
    loader = torch.utils.data.DataLoader(dataset, batch_size=8)

    def texts(seed):
        torch.manual_seed(seed)
        return [[text for batch in loader for text in batch["occ1"]] for _ in range(2)]

    first, second = texts(1)
    assert len(set(first) & set(second)) < 9
    assert texts(1) == [first, second]
