from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from histocc.formatter import construct_general_purpose_formatter, hisco_blocky5
from histocc.metrics import code_sets
from histocc.metrics.code_sets import ClassSetMetrics, CodeSetMetrics
from histocc.metrics.mistakes import CodeMistakes, CodeTally, describe_mistakes
from histocc.metrics.row_groups import RowGroups, summarise


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


def of_rows(rows):
    """Figures of rows of `brute_force`, added up."""
    total = [int(sum(column)) for column in zip(*rows)] if len(rows) else [0] * 5
    n, exact, right, predicted, true = total

    def percent(part, whole):
        return 100 * part / whole if whole else math.nan

    return pytest.approx(
        {
            "rows": n,
            "exact_set_acc": percent(exact, n),
            "precision": percent(right, predicted),
            "recall": percent(right, true),
            "f1": percent(2 * right, predicted + true),
        },
        nan_ok=True,
    )


def summary_of(metrics, groups=None):
    return summarise(metrics.counts(), groups or RowGroups())


def overall(summary):
    return {name: value for name, value in summary.items() if not isinstance(value, (dict, list))}


@pytest.mark.parametrize("name", FORMATTERS)
@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_those_of_sets(name, seed, monkeypatch):
    monkeypatch.setattr(code_sets, "_MAX_PENDING_ROWS", 25)
    formatter = FORMATTERS[name]()
    pred, target = random_tokens(formatter, 60, seed)
    language, seen = np.arange(60) % 2, np.arange(60) % 5 < 2
    expected = brute_force(formatter, pred, target)

    groups = RowGroups(["en", "da", "is"], language, seen)
    metrics = CodeSetMetrics(formatter, groups)
    for rows in torch.arange(60).flip(0).split(17):
        metrics.update(pred[rows], target[rows], rows)
    summary = summary_of(metrics, groups)

    codes = np.array(["0", "1", "2", "3+"])[np.minimum(expected[:, 4], 3)]
    languages, descriptions = np.array(["en", "da"])[language], np.where(seen, "seen", "unseen")
    assert overall(summary) == of_rows(expected)
    for kind, of_row in (("by_codes", codes), ("by_language", languages), ("by_description", descriptions)):
        assert set(summary[kind]) == set(of_row)
        for group, figures in summary[kind].items():
            assert figures == of_rows(expected[of_row == group])
    combined = list(zip(languages.tolist(), codes.tolist(), descriptions.tolist()))
    assert len(summary["cells"]) == len(set(combined))
    for cell in summary["cells"]:
        key = cell.pop("language"), cell.pop("codes"), cell.pop("description")
        assert cell == of_rows([row for row, own in zip(expected, combined) if own == key])


@pytest.mark.parametrize(
    ("predicted", "true", "exact", "right", "n_predicted", "n_true"),
    [
        ("11111&22222", "11111", False, 1, 2, 1),  # one too many
        ("", "11111", False, 0, 0, 1),  # nothing
        ("22222&11111", "11111&22222", True, 2, 2, 2),  # in another order
        ("11111&11111", "11111", True, 1, 1, 1),  # twice
        ("11111", "11111&22222", False, 1, 1, 2),  # one too few
        ("33333", "11111", False, 0, 1, 1),
    ],
)
def test_rows_worked_out_by_hand(predicted, true, exact, right, n_predicted, n_true):
    formatter = hisco_blocky5()
    metrics = CodeSetMetrics(formatter)
    blank = torch.ones(1, 25, dtype=torch.int64)  # padding
    metrics.update(tokens(formatter, [predicted]) if predicted else blank, tokens(formatter, [true]))
    assert overall(summary_of(metrics)) == of_rows([[1, exact, right, n_predicted, n_true]])


@pytest.mark.parametrize("seed", range(3))
def test_a_flat_head_predicts_the_classes_above_one_half(seed, monkeypatch):
    monkeypatch.setattr(code_sets, "_MAX_PENDING_ROWS", 25)
    generator = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(60, 7, generator=generator) - 1, torch.rand(60, 7, generator=generator) < 0.2
    groups = RowGroups(["en", "da"], np.arange(60) % 2)
    metrics = ClassSetMetrics(groups)
    for rows in torch.arange(60).split(17):
        metrics.update(logits[rows], targets[rows].float(), rows)
    expected = []
    for scores, row in zip(logits.tolist(), targets.tolist()):
        found, wanted = ({i for i, there in enumerate(each) if there} for each in ([s > 0 for s in scores], row))
        expected.append([1, found == wanted, len(found & wanted), len(found), len(wanted)])
    summary = summary_of(metrics, groups)
    assert overall(summary) == of_rows(expected)
    assert summary["by_language"] == {"en": of_rows(expected[::2]), "da": of_rows(expected[1::2])}
    assert summary["by_description"] == {}
    assert summary["by_codes"] == {
        name: of_rows([row for row in expected if min(row[4], 3) == n])
        for n, name in enumerate(["0", "1", "2", "3+"])
        if any(min(row[4], 3) == n for row in expected)
    }


def test_counts_of_two_parts_add_up():
    formatter = hisco_blocky5()
    pred, target = random_tokens(formatter, 40, 5)
    whole, first, second = (CodeSetMetrics(formatter) for _ in range(3))
    whole.update(pred, target)
    first.update(pred[:13], target[:13])
    second.update(pred[13:], target[13:])
    np.testing.assert_array_equal(first.counts() + second.counts(), whole.counts())


def test_row_without_codes_has_an_empty_set():
    formatter = construct_general_purpose_formatter(3, ["a", "b"])
    eos, pad = [3] * 3, [1] * 3
    metrics = CodeSetMetrics(formatter)
    metrics.update(torch.tensor([eos + pad, pad + pad]), torch.tensor([eos + pad, eos + pad]))
    summary = summary_of(metrics)
    assert summary["exact_set_acc"] == 100
    assert math.isnan(summary["precision"])
    assert math.isnan(summary["f1"])
    assert list(summary["by_codes"]) == ["0"]


def test_nothing_to_count():
    summary = summary_of(CodeSetMetrics(hisco_blocky5()))
    assert summary["rows"] == 0
    assert math.isnan(summary["exact_set_acc"])
    assert (summary["by_codes"], summary["cells"]) == ({}, [])


def test_missing_places_are_refused():
    formatter = hisco_blocky5()
    batch = tokens(formatter, ["11111"])
    with pytest.raises(ValueError, match="language_index is needed"):
        RowGroups(["en"])
    metrics = CodeSetMetrics(formatter, RowGroups(["en"], np.zeros(1)))
    metrics.update(batch, batch)
    with pytest.raises(ValueError, match="places of the rows are needed"):
        metrics.counts()


def confusions(predicted, true):
    """Rows of each missed code with each spurious one of its row; rows of each true code, found; by plain loops."""
    pairs, codes = {}, {}
    for row, (found, wanted) in enumerate(zip(predicted, true)):
        for code in wanted:
            tally = codes.setdefault(code, [0, 0, []])
            tally[0] += 1
            tally[1] += code in found
            if code not in found:
                tally[2].append(row)
                for other in found - wanted:
                    pairs.setdefault((code, other), [0, []])
                    pairs[code, other][0] += 1
                    pairs[code, other][1].append(row)
    return (
        {key: CodeTally(rows, 0, examples[:3]) for key, (rows, examples) in pairs.items()},
        {key: CodeTally(rows, found, examples[:3]) for key, (rows, found, examples) in codes.items()},
    )


@pytest.mark.parametrize("seed", range(3))
def test_mistakes_equal_those_of_plain_loops(seed, monkeypatch):
    monkeypatch.setattr(code_sets, "_MAX_PENDING_ROWS", 25)
    formatter = hisco_blocky5()
    pred, target = random_tokens(formatter, 60, seed)

    def codes(row):
        return {code for code in map(formatter.decode_block, row.view(5, 5).numpy()) if code}

    parts = [CodeMistakes(), CodeMistakes()]
    for part, mistakes in zip(torch.arange(60).flip(0).split(41), parts):
        metrics = CodeSetMetrics(formatter, mistakes=mistakes)
        for rows in part.split(17):
            metrics.update(pred[rows], target[rows], rows)
        metrics.counts()
    parts[0].merge(parts[1])
    pairs, of_codes = confusions(list(map(codes, pred)), list(map(codes, target)))
    assert parts[0].pairs == pairs
    assert parts[0].codes == of_codes
    counts = [tally.rows for _, tally in parts[0].most_confused(5)]
    assert counts == sorted((tally.rows for tally in pairs.values()), reverse=True)[:5]
    shares = [tally.found / tally.rows for _, tally in parts[0].worst_covered(5)]
    assert shares == sorted(t.found / t.rows for t in of_codes.values() if t.found < t.rows)[:5]


def test_mistakes_of_a_flat_head_name_its_classes():
    mistakes = CodeMistakes()
    metrics = ClassSetMetrics(mistakes=mistakes, names=["a", "b", "c"])
    logits = torch.tensor([[1.0, -1.0, 2.0], [1.0, -1.0, -1.0]])
    metrics.update(logits, torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([4, 9]))
    metrics.counts()
    assert mistakes.pairs == {("b", "c"): CodeTally(1, 0, [4])}
    assert mistakes.codes == {"a": CodeTally(2, 2, []), "b": CodeTally(1, 0, [4])}
    assert describe_mistakes(mistakes, str) == {
        "confused": [{"true": "b", "predicted": "c", "rows": 1, "examples": ["4"]}],
        "worst_covered": [{"code": "b", "rows": 1, "found": 0, "examples": ["4"]}],
    }


def test_a_head_of_very_many_classes_is_counted_right():
    metrics = ClassSetMetrics()
    targets = torch.zeros(1, 40_000)
    targets[0, 7] = 1
    metrics.update(torch.ones(1, 40_000), targets)
    assert metrics.counts().sum(axis=(0, 1, 2)).tolist() == [1, 0, 1, 40_000, 1]
