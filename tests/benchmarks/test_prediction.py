"""The benchmark of prediction runs and says that both ways agree."""

from tests.benchmarks import prediction


def test_the_table_compares_with_the_plain_way(capsys):
    argv = ["--encoder", "small", "--method", "greedy", "flat", "--rows", "2", "--rounds", "1", "--batch-size", "2"]
    rows = prediction.main(argv)
    assert [(row["encoder"], row["method"], row["rows"]) for row in rows] == [
        ("small", "greedy", 2),
        ("small", "flat", 2),
    ]
    assert all(row["plain"] > 0 and row["seconds"] > 0 and row["ratio"] > 0 for row in rows)
    assert "x plain" in capsys.readouterr().out


def test_what_is_compared_is_told_apart(monkeypatch):
    """Answers that differ end the benchmark, whatever their speed."""
    import numpy as np
    import pytest

    models = prediction.Models.make("small")
    texts = [("smith", "en"), ("weaver", "en")]
    monkeypatch.setattr(prediction, "plainly", lambda *args: np.zeros((len(args[2]), 1919)) - 1)
    with pytest.raises(AssertionError, match="flat: 0% agree"):
        prediction.compare(models, "flat", texts, texts, 1, 2)
