"""Whatever is wrong with a command line or a file: exit code 2, one message with the value, and nothing is touched."""

from __future__ import annotations

import re

import pytest

from tests.attack.cases import CASES, SCRIPTS, Case
from tests.attack.forks import Answer, ask, contents
from tests.attack.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    world = World(folder)
    runs = [folder / "runs" / script for script in SCRIPTS]
    work = [tmp_path_factory.mktemp("start") for _ in SCRIPTS]
    answers = ask([world.argv(script, run) for script, run in zip(SCRIPTS, runs)], work, folder / "runs" / "log")
    assert [answer.code for answer in answers] == [0, 0, 0], answers
    return world


@pytest.fixture(scope="module")
def answers(request, world, tmp_path_factory) -> dict[Case, Answer]:
    """The answer to each case that was chosen, asked all at once."""
    own = [item for item in request.session.items if item.module is request.module]
    chosen = [item.callspec.params["case"] for item in own if "answers" in item.fixturenames]
    folder = tmp_path_factory.mktemp("cases")
    folders = [folder / str(number) for number in range(len(chosen))]
    for each in folders:
        each.mkdir()
    argvs = [case.make(world, each) for case, each in zip(chosen, folders)]
    before = contents(world.folder)
    found = dict(zip(chosen, ask(argvs, folders, folder / "log")))
    assert contents(world.folder) == before
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_input_is_one_message_and_changes_nothing(case, answers):
    answer = answers[case]
    assert answer.code == 2, answer.output
    assert re.search(case.says, answer.output), answer.output
    assert answer.messages == 1, answer.output
    assert "Traceback" not in answer.output
    assert answer.changed == []


def test_the_table_is_large_and_says_nothing_twice():
    assert len({str(case) for case in CASES}) == len(CASES) >= 150
    assert {case.script for case in CASES} == set(SCRIPTS)
