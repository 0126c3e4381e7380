"""Processes: who am I, who else is there, and what happens when one of us fails.

torchrun's environment decides (``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``), on one machine or several. One process is the
same code as many, with rank 0 of 1. Gradients travel over nccl on CUDA and gloo on CPU; a second group on gloo, the
control group, carries the few numbers that steer a run (stop requests, sums of figures) without touching the GPU.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

_FAILED = "histocc/failed"
# Dead peers are noticed by their closed connections; the time limit is for a machine that falls silent.
_TIMEOUT = timedelta(minutes=30)


def environment_rank() -> tuple[int, int, int]:
    """Rank, local rank and number of processes as torchrun's environment gives them; 0, 0, 1 without it."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size <= 1:
        return 0, 0, 1
    return int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0")), world_size


@dataclass
class Processes:
    """This process among the processes of a run.

    Attributes
    ----------
    rank, local_rank, world_size
        Global rank (data, files), rank on this machine (device) and number of processes.
    device
        Where this process computes.
    control
        gloo group over all processes; None for a single process.
    store
        Key-value store that outlives a failing process; None for a single process.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: dist.ProcessGroup | None = None
    store: dist.Store | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    def sum(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Add up figures over all processes in one collective; every process must pass the same keys in order."""
        if self.control is None:
            return {k: float(v) for k, v in figures.items()}
        values = torch.tensor([float(v) for v in figures.values()], dtype=torch.float64)
        dist.all_reduce(values, group=self.control)
        return dict(zip(figures, values.tolist()))

    def sum_array(self, array: Any) -> Any:
        """Add up an integer numpy array over all processes, element by element; same shape on every process."""
        if self.control is None:
            return array
        values = torch.as_tensor(array).clone()
        dist.all_reduce(values, group=self.control)
        return values.numpy()

    def gather(self, item: Any) -> list[Any]:
        """Every process's `item`, in order of rank, on every process; for rare and small things."""
        if self.control is None:
            return [item]
        items: list[Any] = [None] * self.world_size
        dist.all_gather_object(items, item, group=self.control)
        return items

    def main_first(self, name: str, action: Callable[[], Any]) -> None:
        """Run `action` on the main process while the others wait, however long it takes.

        No collective is involved, so no timeout ends a long preparation. A failure of the main process ends the wait.
        """
        if self.is_main:
            action()
        if self.store is None:
            return
        key = f"histocc/done/{name}"
        if self.is_main:
            self.store.set(key, "1")
        while not self.store.check([key]):
            if self.store.check([_FAILED]):
                raise PeerFailure
            time.sleep(0.2)

    def claim_failure(self) -> bool:
        """Say that this process failed; True if it is the first one, whose message people should see."""
        if self.store is None:
            return True
        try:
            return self.store.compare_set(_FAILED, "", str(self.rank)) == str(self.rank).encode()
        except (RuntimeError, OSError):
            # The store died with the process that held it: that one failed first.
            return False


class PeerFailure(RuntimeError):
    """Another process failed and has said why; this one only has to end."""


def is_connection_loss(error: BaseException) -> bool:
    """Whether `error` is what the survivors of a failed process see, rather than a failure of their own."""
    if isinstance(error, (PeerFailure, dist.DistNetworkError, dist.DistBackendError, dist.DistStoreError)):
        return True
    text = str(error).lower()
    signs = (
        "connection closed by peer",
        "connection reset by peer",
        "broken pipe",
        "gloo",
        "timed out waiting",
        "nccl",
    )
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)


def pick_device(local_rank: int = 0) -> torch.device:
    """The CUDA device of this local rank where there is one, else the CPU."""
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def start_processes() -> Processes:
    """Join the run that torchrun's environment describes; a single process joins nothing."""
    rank, local_rank, world_size = environment_rank()
    device = pick_device(local_rank)
    if world_size == 1:
        return Processes(device=device)
    store, rank, world_size = next(dist.rendezvous("env://", rank=rank, world_size=world_size, timeout=_TIMEOUT))
    store.set_timeout(_TIMEOUT)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore("histocc/group", store),
        rank=rank,
        world_size=world_size,
        timeout=_TIMEOUT,
        device_id=device if device.type == "cuda" else None,
    )
    control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    processes = Processes(rank, local_rank, world_size, device, control, store)
    threading.Thread(target=_leave_when_a_peer_fails, args=(store, rank), daemon=True).start()
    return processes


def _leave_when_a_peer_fails(store: dist.Store, rank: int, grace_seconds: float = 10.0) -> None:
    """End this process if another one failed and the main thread, stuck in a collective perhaps, does not notice."""
    while True:
        time.sleep(2.0)
        try:
            if store.check([_FAILED]) and store.get(_FAILED) != str(rank).encode():
                break
        except (RuntimeError, OSError):
            # Without a store there is nobody left to hear from; the collectives report the loss.
            return
    time.sleep(grace_seconds)
    os._exit(1)


def finish_processes(processes: Processes) -> None:
    """Leave the process group in good order."""
    if processes.control is not None and dist.is_initialized():
        dist.barrier(group=processes.control)
        dist.destroy_process_group()


class StopAgreement:
    """Turns stop requests that reach single processes into one decision of all, at the same step.

    Each step sends the own request around on the control group and reads the result of the step before, so that
    nobody waits: all processes see a request one step after it was sent, and all at the same step.
    """

    def __init__(self, processes: Processes) -> None:
        self._control = processes.control
        self._pending: tuple[Any, torch.Tensor] | None = None

    def exchange(self, requested: bool) -> bool:
        """Tell the others whether a stop was requested here; return whether all stop now."""
        if self._control is None:
            return requested
        decision = False
        if self._pending is not None:
            work, flag = self._pending
            work.wait()
            decision = bool(flag.item())
        flag = torch.tensor([int(requested)])
        self._pending = (dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._control, async_op=True), flag)
        return decision
