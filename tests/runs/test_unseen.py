"""The demo's beginning and end: its flat head, and the descriptions that it codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from histocc.runs.demo import begin_with_rare_classes
from histocc.runs.unseen import SHOWN, SHOWN_WITH_MORE_CODES, CodedDescription, choose_unseen, show_unseen

SINGLE = [CodedDescription(f"Weaver {i}", "en", ("75400",)) for i in range(30)]
SEVERAL = [CodedDescription(f"smith and farmer {i}", "en", ("83110", "61110")) for i in range(20)]


def test_both_kinds_of_rows_are_shown():
    chosen = choose_unseen(SINGLE + SEVERAL, [], seed=1)
    assert len(set(chosen)) == len(chosen) == SHOWN
    assert sum(len(row.codes) > 1 for row in chosen) == SHOWN_WITH_MORE_CODES


@pytest.mark.parametrize(("singles", "several"), [(30, 1), (2, 20), (30, 0), (0, 20)])
def test_rows_of_one_kind_stand_in_for_the_other(singles, several):
    chosen = choose_unseen(SINGLE[:singles] + SEVERAL[:several], [], seed=1)
    assert len(chosen) == SHOWN
    assert sum(len(row.codes) > 1 for row in chosen) == max(several if several < 4 else 4, SHOWN - singles)


def test_few_rows_are_all_shown():
    assert set(choose_unseen(SINGLE[:3] + SEVERAL[:1], [], seed=1)) == {*SINGLE[:3], SEVERAL[0]}


def test_what_was_trained_on_is_not_shown_however_it_is_written():
    trained = [CodedDescription(f"  weaver   {i}".upper(), "da", ("99999",)) for i in range(25)]
    chosen = choose_unseen(SINGLE, trained, seed=1)
    assert {row.text for row in chosen} == {f"Weaver {i}" for i in range(25, 30)}


def test_no_description_is_shown_twice():
    again = [row._replace(text=row.text.upper(), language="da") for row in SINGLE[:4]]
    assert len(choose_unseen(SINGLE[:4] + again, [], seed=1)) == 4


def test_rows_without_codes_are_not_shown():
    assert choose_unseen([CodedDescription("illegible", "en", ())], [], seed=1) == []


def test_the_seed_alone_decides():
    assert choose_unseen(SINGLE + SEVERAL, [], seed=1) == choose_unseen(SINGLE + SEVERAL, [], seed=1)
    assert choose_unseen(SINGLE + SEVERAL, [], seed=1) != choose_unseen(SINGLE + SEVERAL, [], seed=2)


def test_without_an_unseen_description_nothing_is_shown(tmp_path, capsys):
    """Not even a model is needed."""
    show_unseen(tmp_path / "none", Path("table.csv"), SINGLE, SINGLE, 1, torch.device("cpu"))
    assert capsys.readouterr().out == ""


def test_a_head_begins_with_rare_classes():
    head = nn.Linear(8, 100)
    begin_with_rare_classes(head)
    torch.testing.assert_close(head(torch.zeros(1, 8)).sigmoid(), torch.full((1, 100), 1 / 101))
