"""What single processes of the tests do: importable, and a script for torchrun (`work.py NAME ARGUMENT...`)."""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def script(argv: list[str]) -> int:
    from train_mixer import main

    return main(argv)


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


# -- evaluation and gradients ------------------------------------------------------------------------------------------


def evaluate_and_differentiate(folder: str) -> int:
    """Evaluate tables of several lengths and check the gradients of a wrapped model; figures go to a file."""
    from histocc.processes.distributed import finish_processes, start_processes

    processes = start_processes()
    model = _model(folder)
    figures = {rows: _figures(model, Path(folder) / f"{rows}.csv", processes) for rows in (7, 64, 790)}
    name = f"figures_{processes.world_size}_{processes.rank}.json"
    (Path(folder) / name).write_text(json.dumps(figures, default=vars))
    _check_gradients(model, Path(folder) / "64.csv", processes)
    finish_processes(processes)
    return 0


def _model(folder: str) -> Any:
    import torch

    from histocc.formatter import hisco_blocky5
    from histocc.model_assets import Seq2SeqMixerOccCANINE

    torch.manual_seed(1)
    return Seq2SeqMixerOccCANINE(f"{folder}/encoder", hisco_blocky5().num_classes, 1919)


def _data(table: Path) -> Any:
    from histocc.dataloader import OccDatasetMixerInMemMultipleFiles
    from histocc.formatter import hisco_blocky5

    return OccDatasetMixerInMemMultipleFiles([table], hisco_blocky5(), None, 32, 1919, training=False)


def _loss() -> Any:
    from torch import nn

    from histocc.formatter import PAD_IDX
    from histocc.loss import BlockOrderInvariantLoss, LossMixer

    return LossMixer(BlockOrderInvariantLoss(PAD_IDX), nn.BCEWithLogitsLoss())


def _figures(model: Any, table: Path, processes: Any) -> dict[str, Any]:
    import numpy as np

    from histocc.dataloader import EvalBatchSampler, make_loader
    from histocc.formatter import hisco_blocky5
    from histocc.metrics.code_sets import EvaluatedCodes
    from histocc.metrics.row_groups import RowGroups
    from histocc.seq2seq_mixer_engine import evaluate_figures
    from histocc.training.context import RunContext
    from histocc.training.precision import Precision

    data = _data(table)
    loader = make_loader(data, EvalBatchSampler(len(data), 16, processes.rank, processes.world_size))
    return evaluate_figures(
        model,
        loader,
        _loss(),
        RunContext(processes, Precision(processes.device)),
        EvaluatedCodes(
            hisco_blocky5(),
            RowGroups(data.languages, data.language_index, np.arange(len(data)) % 3 == 0),
            text_of=data.text.__getitem__,
        ),
    )


def _check_gradients(model: Any, table: Path, processes: Any) -> None:
    import torch

    from histocc.dataloader import TrainBatchSampler, make_loader
    from histocc.runs.shared import wrap
    from histocc.seq2seq_mixer_engine import mixer_loss

    data = _data(table)
    sampler = TrainBatchSampler(len(data), 8, 42, processes.rank, processes.world_size)
    loader = make_loader(data, sampler)
    batch = next(iter(loader))
    model.eval()  # without dropout, to compare

    def gradient(module: Any) -> torch.Tensor:
        model.zero_grad()
        mixer_loss(module, batch, _loss())["loss"].backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    own = gradient(model)
    average = sum(torch.tensor(each) for each in processes.gather(own.tolist())) / processes.world_size
    together = gradient(wrap(model, processes))
    assert float((together - average).norm()) <= 1e-6 * float(average.norm())
    if processes.world_size > 1:
        assert not torch.allclose(own, average), "all ranks had the same rows"


# -- training ----------------------------------------------------------------------------------------------------------


def train_frozen(argv: list[str], records: str) -> int:
    """Train with a frozen encoder; what this process changes in the save folder goes to `records/<rank>`."""
    import train_mixer

    folder = os.path.abspath(argv[argv.index("--save-dir") + 1])
    touched = open(f"{records}/{rank()}", "a", buffering=1)  # noqa: SIM115
    busy = False

    def watch(event: str, arguments: tuple) -> None:
        nonlocal busy
        changes = event in ("os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate")
        changes |= event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if changes and not busy and str(arguments[0]).startswith(folder):
            busy = True
            touched.write(f"{event} {arguments[0]}\n")
            busy = False

    sys.addaudithook(watch)
    plain = train_mixer.train_mixer
    train_mixer.train_mixer = lambda options, processes: plain(replace(options, freeze_encoder=True), processes)
    return script(argv)


def train_recorded(argv: list[str], records: str) -> int:
    """Train; the rows of each batch go to `records/<rank>`, a line each."""

    def record(loss: dict, batch: dict) -> dict:
        if "filler" not in batch:
            with open(f"{records}/{rank()}", "a") as file:
                file.write(json.dumps(batch["rows"].tolist()) + "\n")
        return loss

    _after_loss(record)
    return script(argv)


def _after_loss(action: Callable[[dict, dict], dict]) -> None:
    from histocc import seq2seq_mixer_engine as engine

    original = engine.mixer_loss
    engine.mixer_loss = lambda model, batch, loss_fn: action(original(model, batch, loss_fn), batch)


# -- trouble -----------------------------------------------------------------------------------------------------------


def train_until(argv: list[str], what: str) -> int:
    """Train; in the third batch of rank 1 `what` happens."""
    calls = 0

    def trouble(loss: dict, batch: dict) -> dict:
        nonlocal calls
        calls += 1
        if calls == 3 and rank() == 1:
            if what == "raise":
                raise ArithmeticError("rank 1 has had enough")
            if what == "die":
                os.kill(os.getpid(), 9)
            if what == "not a number":
                loss["loss"] = loss["loss"] * float("nan")
            if what == "infinite":
                loss["loss"] = loss["loss"] + float("inf")  # its gradient is as before
        if calls == 3 and rank() == 0 and what == "hang":
            print("hanging", flush=True)
            time.sleep(100)  # as in a kernel that waits for the other process
        return loss

    _after_loss(trouble)
    return script(argv)


def refuse_late(argv: list[str]) -> int:
    """A command that is refused; rank 1 comes to its end some time after the others."""
    from histocc.processes.distributed import Processes

    claim = Processes.claim_failure
    Processes.claim_failure = lambda self: (time.sleep(self.rank), claim(self))[1]
    return script(argv)


def train_on_own_data(argv: list[str], tables: str) -> int:
    """Train; each rank reads `tables/<rank>.csv`."""
    return script([*argv, "--train-data", f"{tables}/{rank()}.csv"])


# -- the end -----------------------------------------------------------------------------------------------------------


class Dawdler:
    """Global that lets other threads run once the interpreter has begun to end."""

    def __init__(self) -> None:
        self._sleep = time.sleep

    def __del__(self) -> None:
        self._sleep(0.3)


def train_with_late_threads(argv: list[str]) -> int:
    """Train; at the end the threads of gloo get the processor only while all others sleep, as on a busy machine."""
    from histocc.runs import command_line as cli

    globals()["dawdler"] = Dawdler()
    finish = cli.finish_processes

    def slow_down(processes: Any) -> None:
        for thread in map(int, os.listdir("/proc/self/task")):
            os.sched_setaffinity(thread, {min(os.sched_getaffinity(0))})
            if "gloo_runloop" in Path(f"/proc/self/task/{thread}/comm").read_text():
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
        finish(processes)

    cli.finish_processes = slow_down
    return script(argv)


def leave_and_tell(argv: list[str]) -> int:
    """Train; whoever registered for the end of the process is heard."""
    atexit.register(print, "told of the end")
    return script(argv)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    name, *arguments = sys.argv[1:]
    decoded = [json.loads(a) if a.startswith("[") else a for a in arguments]
    sys.exit(globals()[name](*decoded))
