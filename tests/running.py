"""Runs in processes of their own, forked from a server that has imported everything once, so that each costs little."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
PATIENCE_SECONDS = 60.0

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "matplotlib.backends.backend_agg",
        "pandas",
        "transformers.models.canine.modeling_canine",
        "histocc.runs.mixer",
        "histocc.runs.flat",
        "finetune",
        "train",
        "train_mixer",
        "tests.running",
    ]
)


class Running:
    """A process that calls `target(*args)`; what that returns is its exit code."""

    def __init__(self, target: Callable[..., Any], *args: Any, log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        before = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)  # of the server, which starts with the first process
        try:
            self._process = _server.Process(target=_enter, args=(target, args, str(log), env or {}))
            self._process.start()
            # Where a test fails, nothing it has started may outlive the tests.
            atexit.register(self._process.kill)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The exit code, negative for a signal; fails where the process does not end in time."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            raise AssertionError(f"still running after {seconds:.0f} s:\n{self.output}")
        return code

    def wait_for(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> re.Match[str]:
        """Wait until the output has `pattern`; fails where the process ends before."""
        deadline = time.monotonic() + seconds
        while True:
            alive = self.alive
            if found := re.search(pattern, self.output):
                return found
            assert alive, f"ended with {self._process.exitcode} before {pattern!r}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {pattern!r} in {seconds:.0f} s:\n{self.output}"
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self._process.pid, number)

    def signal_family(self, number: int) -> None:
        """Send a signal to the process and to those that it has started."""
        for each in (*self.children(), self.pid):
            os.kill(each, number)

    def children(self) -> list[int]:
        """The processes that it has started."""
        return [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._process.is_alive()

    @property
    def output(self) -> str:
        """stdout and stderr so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


def start_ranks(target: Callable[..., Any], *args: Any, world_size: int, folder: Path) -> list[Running]:
    """Processes of one run, with the environment that torchrun (or srun) would give them; one log each."""
    port = free_port()
    return [
        Running(
            target,
            *args,
            log=folder / f"rank{rank}.log",
            env={
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in range(world_size)
    ]


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def small_encoder(folder: Path, positions: int = 64, rows: int = 64) -> Path:
    """A folder with a tiny encoder of random weights and the usual dropout, as `--encoder` takes it.

    transformers' table of `positions` has as many `rows` as there are hash buckets.
    """
    import torch
    from transformers import CanineConfig, CanineModel

    torch.manual_seed(0)
    config = CanineConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_hash_functions=4,
        num_hash_buckets=rows,
        max_position_embeddings=positions,
    )
    CanineModel(config).save_pretrained(folder)
    return folder


def table(path: Path, rows: int) -> Path:
    """The first rows of the shipped sample as a CSV file."""
    from histocc.datasets import sample_paths

    lines = sample_paths()[0].read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: rows + 1]), encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """What is in each file of a folder and of those in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def command(save_dir: Path, encoder: Path, train: Path, val: Path, *more: object) -> list[str]:
    """A command line of train_mixer.py for a run of seconds; flags in `more` win."""
    argv = ["--save-dir", save_dir, "--encoder", encoder, "--train-data", train, "--val-data", val]
    argv += ["--max-len", 32, "--batch-size", 8, "--learning-rate", 1e-3, "--dropout", 0.1, "--log-interval", 1]
    return [str(part) for part in (*argv, *more)]


def script(argv: Sequence[str]) -> int:
    """Target: train_mixer.py with a command line."""
    from train_mixer import main

    return main(list(argv))


def _enter(target: Callable[..., Any], args: Sequence[Any], log: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # Line by line, so that what is written is there when the process is killed.
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(target(*args))
