from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from histocc.formatter import construct_general_purpose_formatter, hisco_blocky5
from histocc.metrics import code_sets
from histocc.metrics.code_sets import CodeSetMetrics, summarise


def tokens(formatter, labels):
    """Tokens [B, K*S] of labels such as '12345&67890'."""
    return torch.from_numpy(np.stack([formatter.transform_label(label)[1:-1] for label in labels])).long()


def brute_force(formatter, pred, target):
    """Rows [rows, exact, true positives, predicted, true] from sets of strings, one row at a time."""

    def codes(row):
        blocks = row.view(formatter.max_num_codes, formatter.block_size).numpy()
        return {code for code in map(formatter.decode_block, blocks) if code}

    result = []
    for predicted, true in zip(map(codes, pred), map(codes, target)):
        result.append([1, predicted == true, len(predicted & true), len(predicted), len(true)])
    return np.array(result, dtype=np.int64)


def random_tokens(formatter, n_rows, seed):
    """Predictions and targets drawn from few blocks, so that codes recur; some blocks are noise, some empty."""
    rng = np.random.default_rng(seed)
    k, s, v = formatter.max_num_codes, formatter.block_size, formatter.num_classes[0]
    pool = rng.integers(0, v, size=(12, s))
    pool[:6] = rng.integers(v - 4, v, size=(6, s))
    pool[6:8] = 1
    pred, target = (torch.from_numpy(pool[rng.integers(0, 12, size=(n_rows, k))].reshape(n_rows, k * s)) for _ in "pt")
    pred[::3] = target[::3]
    return pred, target


FORMATTERS = {
    "hisco": hisco_blocky5,
    "general": lambda: construct_general_purpose_formatter(8, ["a", "b", "c"]),
    "one code": lambda: construct_general_purpose_formatter(3, ["a"]),
}


@pytest.mark.parametrize("name", FORMATTERS)
@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_those_of_sets(name, seed, monkeypatch):
    monkeypatch.setattr(code_sets, "_MAX_PENDING_ROWS", 25)
    formatter = FORMATTERS[name]()
    pred, target = random_tokens(formatter, 60, seed)
    languages = torch.arange(60) % 2
    expected = brute_force(formatter, pred, target)

    metrics = CodeSetMetrics(formatter, ["en", "da", "is"])
    for rows in torch.arange(60).split(17):
        metrics.update(pred[rows], target[rows], languages[rows])
    counts = metrics.counts()

    n_true = expected[:, 4]
    for group, rows in {
        "all": n_true >= 0,
        "codes/1": n_true == 1,
        "codes/2": n_true == 2,
        "codes/3+": n_true >= 3,
        "language/en": languages.numpy() == 0,
        "language/da": languages.numpy() == 1,
        "language/is": np.zeros(60, dtype=bool),
    }.items():
        np.testing.assert_array_equal(counts[group], expected[rows].sum(axis=0), err_msg=group)
    assert counts["all"].dtype == np.int64


def test_counts_of_two_parts_add_up():
    formatter = hisco_blocky5()
    pred, target = random_tokens(formatter, 40, 5)
    whole, first, second = (CodeSetMetrics(formatter) for _ in range(3))
    whole.update(pred, target)
    first.update(pred[:13], target[:13])
    second.update(pred[13:], target[13:])
    a, b = first.counts(), second.counts()
    assert list(a) == list(b) == list(whole.counts())
    for group, counts in whole.counts().items():
        np.testing.assert_array_equal(a[group] + b[group], counts)


def test_figures_by_language_and_number_of_codes():
    formatter = hisco_blocky5()
    target = tokens(formatter, ["11111", "11111&22222", "33333", "11111&22222&33333"])
    pred = tokens(formatter, ["11111", "22222&11111", "33333&44444", "22222&22222"])
    metrics = CodeSetMetrics(formatter, ["en", "da"])
    metrics.update(pred, target, torch.tensor([0, 0, 1, 1]))
    summary = summarise(metrics.counts())

    assert (summary["rows"], summary["exact_set_acc"]) == (4, 50)
    assert summary["precision"] == pytest.approx(100 * 5 / 6)  # The repeated code of the last row counts once.
    assert summary["recall"] == pytest.approx(100 * 5 / 7)
    assert summary["f1"] == pytest.approx(100 * 10 / 13)
    assert summary["by_language"]["en"]["exact_set_acc"] == 100
    assert summary["by_language"]["da"]["exact_set_acc"] == 0
    assert {name: figures["rows"] for name, figures in summary["by_codes"].items()} == {"1": 2, "2": 1, "3+": 1}
    assert summary["by_codes"]["3+"]["recall"] == pytest.approx(100 / 3)


def test_row_without_codes_has_an_empty_set():
    formatter = construct_general_purpose_formatter(3, ["a", "b"])
    eos, pad = [3] * 3, [1] * 3
    metrics = CodeSetMetrics(formatter)
    metrics.update(torch.tensor([eos + pad, pad + pad]), torch.tensor([eos + pad, eos + pad]))
    summary = summarise(metrics.counts())
    assert summary["exact_set_acc"] == 100
    assert math.isnan(summary["precision"])
    assert math.isnan(summary["f1"])
    assert summary["by_codes"] == {}


def test_nothing_to_count():
    summary = summarise(CodeSetMetrics(hisco_blocky5()).counts())
    assert summary["rows"] == 0
    assert math.isnan(summary["exact_set_acc"])


def test_missing_languages_are_refused():
    formatter = hisco_blocky5()
    batch = tokens(formatter, ["11111"])
    with pytest.raises(ValueError, match="language_index is needed"):
        CodeSetMetrics(formatter, ["en"]).update(batch, batch)
