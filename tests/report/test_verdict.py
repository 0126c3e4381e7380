"""The sentences at the top of a report."""

from __future__ import annotations

import dataclasses

import pytest

from histocc.report.verdict import verdict

FALLING = "The validation loss was still falling at the end: longer training may well help."
RISEN = "The validation loss was lowest at step 400 and has risen since; best.bin has the weights of that step: longer"


def rows(*losses: float, **last: float) -> list[dict[str, float]]:
    made = [{"step": 400.0 * (i + 1), "val_loss": loss} for i, loss in enumerate(losses)]
    made[-1] |= last
    return made


@pytest.mark.parametrize(
    ("losses", "says"),
    [((0.5, 0.4), FALLING), ((0.4, 0.5), RISEN), ((0.4, 0.4001), None), ((0.4, 0.3999), None), ((0.4,), None)],
)
def test_whether_training_was_long_enough(facts, losses, says):
    of_end = dataclasses.replace(facts, total_steps=400 * len(losses))
    sentences = verdict(of_end, rows(*losses), {})
    assert sentences[0] == f"Validation loss {losses[-1]:.4g}."
    assert [s for s in sentences[1:] if "validation loss" in s] == [s for s in sentences[1:] if says and says in s]
    assert len(sentences) == (2 if says else 1)
    # Before its end a run has not failed to be long enough.
    assert len(verdict(dataclasses.replace(facts, total_steps=9999), rows(*losses), {})) == 1


def test_what_the_figure_is_compared_with(facts):
    sentences = verdict(facts, rows(0.5, most_frequent_class=12.34), {})
    assert "the most frequent code, given to every row, would be right in 12.3 % at most" in sentences[1]
