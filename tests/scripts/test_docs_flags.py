"""The guides name flags that there are, by the one name that the help shows."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from histocc.runs.parser import ScriptParser

ROOT = Path(__file__).parents[2]
SCRIPTS = ["train", "train_mixer", "finetune"]
COMMANDS = ["histocc.runs.predict", "histocc.runs.evaluate", "histocc.runs.export"]
# Of other programs.
FOREIGN = {"--nproc_per_node", "--nnodes", "--node_rank", "--master_addr", "--master_port", "--rdzv", "--standalone"}
# Where old spellings are explained.
OLD = {"--save-path", "--epochs", "--alt-prob", "--checkpoint-path"}


def parser(module: str) -> ScriptParser:
    return importlib.import_module(module).build_parser()


@pytest.mark.parametrize("guide", ["train_mixer", "train", "finetune", "predict", "data-format"])
def test_a_guide_names_flags_that_there_are(guide):
    text = (ROOT / "docs" / f"{guide}.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) - OLD
    shown = {name for module in (*SCRIPTS, *COMMANDS) for name in re.findall(r"--[\w-]+", parser(module).format_help())}
    # A switch has an opposite, which the help does not show.
    shown |= {f"--no-{name[2:]}" for name in shown}
    assert named
    assert named - shown - FOREIGN == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_table_of_a_script_states_its_defaults(script):
    text = (ROOT / "docs" / f"{script}.md").read_text(encoding="utf-8")
    made = parser(script)
    checked = 0
    for cell, default in re.findall(r"^\| (`--[^|]+`) \| ([^|]+) \|", text, re.MULTILINE):
        flags, values = re.findall(r"`(--[\w-]+)`", cell), [value.strip(" `") for value in default.split(", ")]
        if len(flags) != len(values):
            continue
        for flag, value in zip(flags, values):
            action = made.action_of(flag)
            assert action is not None, f"{flag} is no flag of {script}.py"
            if isinstance(action.default, (int, float)) and not isinstance(action.default, bool):
                assert float(value) == action.default, flag
                checked += 1
    assert checked >= 5
