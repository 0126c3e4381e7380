"""Whatever is wrong with a command line or a file: exit code 2, one message with the value, and nothing is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.attack.cases import CASES, SCRIPTS, Case
from tests.attack.forks import Answer, ask, contents
from tests.attack.world import World


@dataclass(frozen=True)
class InWorld:
    """Makes the inputs of a case, by its number, in a fork."""

    world: Path
    number: int

    def __call__(self, folder: Path) -> list[str]:
        return CASES[self.number].make(World(self.world), folder)


@dataclass(frozen=True)
class GoodRun:
    """Makes a command line of which nothing is wrong."""

    world: Path
    script: str

    def __call__(self, folder: Path) -> list[str]:
        return World(self.world).argv(self.script, self.world / "runs" / self.script)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    World(folder).build()
    answers = ask([GoodRun(folder, script) for script in SCRIPTS], tmp_path_factory.mktemp("start"))
    assert [answer.code for answer in answers] == [0, 0, 0], answers
    return folder


@pytest.fixture(scope="module")
def answers(request, world, tmp_path_factory) -> dict[Case, Answer]:
    """The answer to each case that was chosen, asked all at once."""
    own = [item for item in request.session.items if item.module is request.module]
    chosen = [item.callspec.params["case"] for item in own if "answers" in item.fixturenames]
    before = contents(world)
    makers = [InWorld(world, CASES.index(case)) for case in chosen]
    prepare = World(world).read_checkpoints
    found = dict(zip(chosen, ask(makers, tmp_path_factory.mktemp("cases"), prepare)))
    assert contents(world) == before
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_input_is_one_message_and_changes_nothing(case, answers):
    answer = answers[case]
    assert answer.code == 2, answer.output
    assert re.search(case.says, answer.output), answer.output
    assert answer.messages == 1, answer.output
    # Long values are not printed whole.
    assert len(answer.output) < 10_000
    assert "Traceback" not in answer.output
    assert answer.changed == []


def test_the_table_is_large_and_says_nothing_twice():
    assert len({str(case) for case in CASES}) == len(CASES) >= 150
    assert {case.script for case in CASES} == set(SCRIPTS)
