"""Many command lines in a moment: each in a fork of one process that has imported everything."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.running import Running

Maker = Callable[[Path], Sequence[str]]

AT_ONCE = 3
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What a command line came to.

    Attributes
    ----------
    code
        Exit code, negative for a signal.
    output
        stdout and stderr.
    changed
        Files and folders that were changed, made or removed.
    """

    code: int
    output: str
    changed: list[str]

    @property
    def messages(self) -> int:
        """How many errors were told, those of argparse among them."""
        return len(re.findall(r"^(?:Error|\w+\.py: error): ", self.output, re.MULTILINE))


def contents(folder: Path) -> dict[str, str]:
    """What every file, link and folder below a folder is, in a few letters."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            kind = f"link to {os.readlink(path)}"
        elif path.is_file():
            kind = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
        else:
            kind = "folder" if path.is_dir() else "other"
        found[str(path.relative_to(folder))] = kind
    return found


def ask(makers: Sequence[Maker], folder: Path, prepare: Callable[[], object] = bool) -> list[Answer]:
    """The answers to command lines, each made and run in a fork and in a folder of its own below `folder`.

    A maker gets its folder, puts there what it likes and gives the name of a script and its arguments; `prepare` is
    called before the first fork, for what all of them need. Both can be pickled.
    """
    running = Running(_serve, makers, str(folder), prepare, log=folder / "log")
    assert running.wait(len(makers) * PATIENCE_SECONDS) == 0, running.output
    return [Answer(**answer) for answer in json.loads((folder / "answers.json").read_text())]


def _serve(makers: Sequence[Maker], place: str, prepare: Callable[[], object]) -> int:
    """Target: fork for each command line, at most so many at once."""
    for name in ("train", "train_mixer", "finetune", "histocc.runs.flat", "histocc.preparation"):
        importlib.import_module(name)
    prepare()
    # Forks share the memory of what is there as long as nobody counts it.
    gc.freeze()
    gc.disable()
    waiting = list(enumerate(makers))
    running: dict[int, tuple[int, float]] = {}
    answers: list[dict[str, object]] = [{} for _ in makers]
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, make = waiting.pop(0)
            pid = os.fork()
            if pid == 0:
                _run(make, Path(place) / str(number))
            running[pid] = number, time.monotonic()
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            for each, (_, started) in running.items():
                if time.monotonic() - started > PATIENCE_SECONDS:
                    os.kill(each, signal.SIGKILL)
            time.sleep(0.002)
            continue
        number, _ = running.pop(pid)
        folder = Path(place) / str(number)
        before, after = json.loads(_beside(folder, "before").read_text()), contents(folder)
        answers[number] = {
            "code": os.waitstatus_to_exitcode(status),
            "output": _beside(folder, "log").read_text(encoding="utf-8", errors="replace"),
            "changed": sorted(name for name in {*before, *after} if before.get(name) != after.get(name)),
        }
    (Path(place) / "answers.json").write_text(json.dumps(answers))
    return 0


def _beside(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name}.{name}")


def _run(make: Maker, folder: Path) -> None:
    """In the fork: what is made, the script, and the end."""
    code = 1
    try:
        descriptor = os.open(_beside(folder, "log"), os.O_CREAT | os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        folder.mkdir()
        os.chdir(folder)
        name, *argv = make(folder)
        _beside(folder, "before").write_text(json.dumps(contents(folder)))
        code = importlib.import_module(name).main(argv)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
