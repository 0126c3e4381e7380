"""Small inputs and finished runs of the three scripts, which the cases damage copies of."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.running import small_encoder, table

FEW = ["--max-len", "32", "--batch-size", "8", "--max-steps", "2", "--log-interval", "1"]
JOBS = [("farmer", "61110"), ("smith", "83110"), ("baker", "77610"), ("teacher", "13020"), ("tailor", "79100")]


@dataclass(frozen=True)
class World:
    """A folder with inputs that are good, and `runs/` with a finished run of each script.

    Parameters
    ----------
    folder
        The folder.
    """

    folder: Path

    def build(self) -> None:
        """Make the inputs."""
        folder = self.folder
        small_encoder(folder / "encoder")
        table(folder / "train.csv", 40)
        table(folder / "val.csv", 10)
        (folder / "data").mkdir()
        table(folder / "data" / "a.csv", 60)
        rows = [f"{job} {i},{code},en" for i in range(5) for job, code in JOBS]
        (folder / "table.csv").write_text("\n".join(["occ1,code,lang", *rows]) + "\n")
        (folder / "words.csv").write_text("word,freq\nsmith,3\nfarmer,2\n")
        (folder / "key.csv").write_text("system_code,code\n" + "".join(f"{c},{i}\n" for i, (_, c) in enumerate(JOBS)))
        (folder / "descriptions.csv").write_text("code,text\n61110,General farmer\n")
        (folder / "runs").mkdir()

    def argv(self, script: str, run: Path | str) -> list[str]:
        """A complete command line that would run for two steps in the save folder `run`."""
        at = self.folder
        inputs = {
            "train_mixer": ["--save-dir", run, "--train-data", at / "train.csv", "--val-data", at / "val.csv"],
            "finetune": ["--save-path", run, "--dataset", at / "table.csv", "--target-cols", "code"],
            "train": ["--save-dir", run, "--train-data", at / "data", "--model-name", "m"],
        }
        return [script, *map(str, inputs[script]), "--encoder", str(at / "encoder"), *FEW]

    def gpf(self, run: Path | str) -> list[str]:
        """A command line of `train_mixer.py` with codes of one's own."""
        own = str(self.folder / "table.csv")
        system = ["--formatter", "gpf", "--target-cols", "code"]
        return [*self.argv("train_mixer", run), *system, "--train-data", own, "--val-data", own]

    def copy_of_run(self, script: str, target: Path) -> Path:
        """The finished run of a script, copied; of its checkpoints ``last.bin`` alone."""
        shutil.copytree(self.folder / "runs" / script, target)
        for path in target.glob("*.bin"):
            if path.name != "last.bin":
                path.unlink()
        return target

    @functools.lru_cache  # noqa: B019
    def checkpoint(self, script: str) -> dict[str, Any]:
        """The checkpoint of the finished run of a script; read once, for processes that change nothing or end soon."""
        return torch.load(self.folder / "runs" / script / "last.bin", weights_only=True)

    def read_checkpoints(self) -> None:
        """Read the checkpoints of all scripts, before processes are forked that need one each."""
        for path in (self.folder / "runs").iterdir():
            self.checkpoint(path.name)

    def changed_run(self, script: str, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
        """The finished run of a script, copied, whose checkpoint's entries `change` does what it likes with."""
        state = self.checkpoint(script)
        change(state)
        run = self.copy_of_run(script, target)
        torch.save(state, run / "last.bin")
        return run
