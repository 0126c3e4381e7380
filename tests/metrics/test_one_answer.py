import pytest
import torch

from histocc.metrics.one_answer import AnswerCounts, learnt_nothing
from histocc.processes.distributed import Processes


def counted(answers, classes, num_classes=4):
    counts = AnswerCounts()
    for start in range(0, len(answers), 3):  # batches of three
        logits = torch.nn.functional.one_hot(torch.tensor(answers[start : start + 3]), num_classes).float() - 5
        targets = torch.nn.functional.one_hot(torch.tensor(classes[start : start + 3]), num_classes)
        counts.update(logits, targets)
    return counts.figures(Processes())


def test_shares_are_those_of_a_plain_count():
    figures = counted([0, 0, 1, 0, 2, 0, 0], [1, 1, 1, 1, 2, 3, 0])
    assert figures == {"flat_one_answer": pytest.approx(100 * 5 / 7), "most_frequent_class": pytest.approx(100 * 4 / 7)}


@pytest.mark.parametrize(
    ("answers", "classes", "nothing"),
    [
        ([0] * 20, [0, 1, 2, 3] * 5, True),
        ([0] * 20, [0] * 19 + [1], False),  # the data themselves have one answer
        ([0] * 17 + [1] * 3, [0, 1, 2, 3] * 5, False),
    ],
)
def test_a_head_with_one_answer_has_learnt_nothing(answers, classes, nothing):
    assert learnt_nothing(counted(answers, classes)) == nothing


def test_figures_without_the_count_say_nothing():
    assert not learnt_nothing({"val_loss": 1.0})
