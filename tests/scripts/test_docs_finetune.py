"""The example of docs/finetune.md, from the raw register to a model: its commands in order, with what they print."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import finetune
from histocc.__main__ import main

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "finetune.md").read_text(encoding="utf-8")
EXAMPLE = GUIDE.split("## A complete example")[1].split("\n## ")[0]
USING = GUIDE.split("## Using the model")[1].split("\n## ")[0]


def commands(block):
    """The commands of a console block, each with the lines that it prints."""
    for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = re.sub(r" \\\n\s*", " ", text).partition("\n")
        yield shlex.split(command), printed.splitlines()


def shown(words):
    """What `cat FILE` and `head -N FILE` print."""
    lines = Path(words[-1]).read_text(encoding="utf-8").splitlines()
    return lines if words[0] == "cat" else lines[: int(words[1].removeprefix("-"))]


def test_the_register_goes_from_raw_to_trained(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "tests" / "registers", tmp_path / "tests" / "registers")
    monkeypatch.chdir(tmp_path)
    steps = prepared = 0
    for kind, block in re.findall(r"```(console|python)\n(.*?)```", EXAMPLE, flags=re.DOTALL):
        if kind == "python":
            exec(compile(block, "docs/finetune.md", "exec"), {})
            continue
        for words, printed in commands(block):
            if words[0] in ("cat", "head"):
                assert shown(words) == printed, words
                continue
            assert words[:2] == ["python", "finetune.py"]
            only_prepared = "--prepare-only" in words
            if not only_prepared:
                steps += 2  # not as many as the guide's: its figures are those of a longer run
                words += ["--max-steps", str(steps)]
            code = finetune.main(words[2:])
            captured = capsys.readouterr()
            assert code == (2 if printed[0].startswith("Error: ") else 0), (words, captured.err)
            if only_prepared:
                assert (captured.out + captured.err).splitlines() == printed, words
                prepared += 1
            else:
                notes = [line for line in printed if line.startswith(("Data: ", "  - "))]
                assert notes == [line for line in captured.out.splitlines() if line.startswith(("Data: ", "  - "))]
    assert (prepared, steps) == (4, 4)

    (line,) = re.findall(r"```bash\n(.*?)```", USING, flags=re.DOTALL)
    words = shlex.split(line)[1:]
    for name, value in (("--model", "runs/register"), ("--input", "register.csv")):
        words[words.index(name) + 1] = value
    assert main(words) == 0, capsys.readouterr().err
    assert len((tmp_path / "coded.csv").read_text(encoding="utf-8").splitlines()) == 131
