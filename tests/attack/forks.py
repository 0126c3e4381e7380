"""Many command lines in a moment: each in a fork of one process that has imported everything."""

from __future__ import annotations

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

AT_ONCE = 2
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


def ask(argvs: Sequence[Sequence[str]], folders: Sequence[Path], log: Path) -> list[Answer]:
    """The answers to command lines, each of which begins with the name of its script and runs in its folder."""
    task = log.with_suffix(".json")
    task.write_text(json.dumps([[str(folder), *argv] for argv, folder in zip(argvs, folders)]))
    running = Running(_serve, str(task), log=log)
    assert running.wait(len(argvs) * PATIENCE_SECONDS) == 0, running.output
    answers = json.loads(task.with_suffix(".answers").read_text())
    return [Answer(**answer) for answer in answers]


def _serve(task: str) -> int:
    """Target: fork for each command line, at most so many at once."""
    tasks = json.loads(Path(task).read_text())
    waiting = list(enumerate(tasks))
    running: dict[int, tuple[int, float, dict[str, str], Path]] = {}
    answers: list[dict[str, object]] = [{} for _ in tasks]
    for name in ("train", "train_mixer", "finetune", "histocc.runs.flat", "histocc.preparation"):
        importlib.import_module(name)
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, (folder, *argv) = waiting.pop(0)
            before = contents(Path(folder))
            log = Path(f"{folder}.log")
            pid = os.fork()
            if pid == 0:
                _run(folder, argv, log)
            running[pid] = number, time.monotonic(), before, Path(folder)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            for each, (_, started, _, _) in running.items():
                if time.monotonic() - started > PATIENCE_SECONDS:
                    os.kill(each, signal.SIGKILL)
            time.sleep(0.002)
            continue
        number, _, before, folder = running.pop(pid)
        after = contents(folder)
        changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
        output = Path(f"{folder}.log").read_text(encoding="utf-8", errors="replace")
        answers[number] = {"code": os.waitstatus_to_exitcode(status), "output": output, "changed": sorted(changed)}
    Path(task).with_suffix(".answers").write_text(json.dumps(answers))
    return 0


def _run(folder: str, argv: Sequence[str], log: Path) -> None:
    """In the fork: the script, and the end."""
    code = 1
    try:
        descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir(folder)
        script: Callable[[Sequence[str]], int] = importlib.import_module(argv[0]).main
        code = script(argv[1:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
