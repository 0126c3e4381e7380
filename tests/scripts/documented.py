"""The pages of the documentation, and the commands on them."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import finetune
import train
import train_mixer
from histocc.__main__ import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SCRIPTS = {"train_mixer.py": train_mixer, "finetune.py": finetune, "train.py": train}


def name_of(page: Path) -> str:
    """A page's name, for the titles of tests."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[str]:
    """The blocks of code on a page that are in one of the languages."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [text for language, text in fences if language in languages]


def lines(page: Path) -> Iterator[str]:
    """The command lines on a page, those of several lines joined; of a terminal's text what follows a `$`."""
    for text in blocks(page, "bash"):
        yield from re.sub(r" \\\n\s*", " ", text).splitlines()
    for text in blocks(page, "console"):
        yield from re.findall(r"^\$ (.*)$", re.sub(r" \\\n\s*", " ", text), flags=re.MULTILINE)


def commands(page: Path, launcher: str = "python") -> Iterator[list[str]]:
    """The words of each of our commands on a page that is started so, from the script's name on."""
    for line in lines(page):
        called = re.match(rf"\s*(?:(?:exec )?{launcher} .*?)?\b((?:\w+\.py|histocc) .*)", line)
        if called and called[1].split()[0] in ("histocc", *SCRIPTS):
            yield shlex.split(called[1].split("&&")[0].rstrip("' &"), comments=True)


def run(words: list[str], *more: str) -> int:
    """The exit code of a command; `more` are flags for those that train."""
    sys.argv = [words[0]]
    try:
        if words[0] == "histocc":
            return main(words[1:])
        return SCRIPTS[words[0]].main([*words[1:], *more])
    except SystemExit as end:
        return end.code
