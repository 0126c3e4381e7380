"""All pages of the documentation: links lead somewhere, files that are named are there, commands are understood.

The pages whose examples build on each other are run whole by `test_docs.py` and `test_docs_finetune.py`, what is
done with the reader's own files by `test_docs_own_files.py`; the quick start and the messages are run here.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from pathlib import Path

import pytest

import train_mixer
from histocc.runs import evaluate, export, predict
from tests.scripts.documented import DOCS, PAGES, ROOT, SCRIPTS, commands, name_of, run

COMMANDS = {"predict": predict, "evaluate": evaluate, "export": export}


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as links on the web spell them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:tests|docs|histocc|\.ci)/[\w./*-]+)`", text):
        assert list(ROOT.glob(path.rstrip("/"))), path


def test_the_index_lists_every_page():
    listed = set(re.findall(r"\]\((\S+\.md)\)", (DOCS / "README.md").read_text(encoding="utf-8")))
    assert listed == {page.name for page in DOCS.glob("*.md")} - {"README.md"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_understood(page):
    for words in (*commands(page), *commands(page, "torchrun")):
        words = words[:-1] if words[-1] == "..." else words
        if "--batchsize" in words:  # a slip, which the guide explains
            continue
        program = SCRIPTS.get(words[0]) or COMMANDS[words[1]]
        rest = words[1:] if words[0] in SCRIPTS else words[2:]
        try:
            program.build_parser().parse_args(rest)
        except (SystemExit, argparse.ArgumentError) as error:
            pytest.fail(f"{' '.join(words)}: {error!r}")


def test_commands_are_found():
    found = [" ".join(words) for page in PAGES for words in commands(page)]
    assert len(found) > 30
    for start in ("train_mixer.py --demo", "finetune.py --dataset", "train.py --", "histocc predict", "histocc export"):
        assert any(line.startswith(start) for line in found), start


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder as a newcomer has it."""
    shutil.copytree(ROOT / "histocc" / "Data", tmp_path / "histocc" / "Data")
    shutil.copytree(ROOT / "tests" / "registers", tmp_path / "tests" / "registers")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_quick_start(home, capsys):
    for words in commands(DOCS / "quickstart.md"):
        assert run(words, "--max-steps", "2") == 0, (words, capsys.readouterr().err)
    made = "runs/demo-train_mixer/report.html", "runs/mine/best.bin", "runs/mine/codes.csv", "coded.csv", "review.csv"
    assert all((home / name).exists() for name in made)


def test_the_messages_are_as_the_guide_shows_them(home, capsys):
    assert train_mixer.main(["--demo", "--max-steps", "1", "--eval-decode-samples", "0"]) == 0
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n\$ (.*?)\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 7
    for line, printed in blocks:
        capsys.readouterr()
        words = shlex.split(line)
        assert run(words[1:] if words[0] == "python" else words) == 2, line
        said = capsys.readouterr().err
        # What the guide leaves out stands there as dots.
        wanted = r".*".join(map(re.escape, printed.strip().split("...")))
        assert re.fullmatch(wanted, said.strip(), flags=re.DOTALL), (line, said)
