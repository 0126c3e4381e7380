"""Processes: who am I, who else is there, and what happens when one of us fails.

torchrun's environment decides (``RANK``, ``LOCAL_RANK``, ``WORLD_SIZE``), on one machine or several. One process is the
same code as many, with rank 0 of 1. Gradients travel over nccl on CUDA and gloo on CPU; a second group on gloo, the
control group, carries the few numbers that steer a run (stop requests, sums of figures) without touching the GPU.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from histocc.errors import UsageError
from histocc.files import console
from histocc.files.torch_files import first_line

_NUMBER = re.compile("[0-9]{1,18}")
LOST_PEER = "Error: another process of this run has ended without a word"
_FAILED = "histocc/failed"
# Dead peers are noticed by their closed connections; the time limit is for a machine that falls silent.
_TIMEOUT = timedelta(minutes=30)
_LIFETIME = timedelta(days=365)
# At the start, unless a flag says otherwise; and how much longer an answer may take than torch would wait for one.
START_SECONDS = 60
_HANDSHAKE_SECONDS = 5.0
_LONGEST_WAIT = 86_400
_LAST_PORT = 65_535
# At the end all are within milliseconds of each other; more is a process that died there, with everything saved.
_PARTING_SECONDS = 30.0
# For those that fail for the same reason, at about the same time.
_FAILING_SECONDS = 3.0
_ADVICE = "start the script with torchrun, which sets these variables, or unset WORLD_SIZE for a single process"


def environment_rank() -> tuple[int, int, int]:
    """Rank, local rank and number of processes as torchrun's environment gives them; 0, 0, 1 without it.

    Raises UsageError where ``WORLD_SIZE``, ``RANK`` and ``LOCAL_RANK`` do not say how many processes there are and
    which one this is.
    """
    world_size = _environment_number("WORLD_SIZE", 1)
    if world_size <= 1:
        return 0, 0, 1
    _require(world_size, "which process this is", "RANK")
    rank = _environment_number("RANK")
    if rank >= world_size:
        raise UsageError(
            f"the environment says RANK={rank}, but with WORLD_SIZE={world_size} ranks go from 0 to {world_size - 1}; "
            + _ADVICE
        )
    return rank, _environment_number("LOCAL_RANK", 0), world_size


def local_world_size() -> int:
    """Number of processes on this machine, as the environment says; 1 where it says nothing.

    Raises UsageError where ``LOCAL_WORLD_SIZE`` is no number.
    """
    return max(1, _environment_number("LOCAL_WORLD_SIZE", 1))


def _environment_number(name: str, default: int | str = "") -> int:
    text = os.environ.get(name, str(default))
    number = int(text) if _NUMBER.fullmatch(text) else -1
    if number < 0:
        raise UsageError(f"the environment says {name}={text:.60}, which is not a whole number from 0 on; {_ADVICE}")
    return number


def _require(world_size: int, what: str, *names: str) -> None:
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"the environment says WORLD_SIZE={world_size} but not {what} ({', '.join(missing)}); {_ADVICE}"
        )


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
        gloo group over all processes; None for a single process, and once all are done. To be referred to from nowhere
        else, since its threads end with the last reference.
    store
        Key-value store that outlives a failing process; None for a single process.
    watch
        Notices the end of other processes; None for a single process.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    control: dist.ProcessGroup | None = None
    store: dist.Store | None = None
    watch: Watch | None = None

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

    def meet(self, name: str) -> None:
        """Wait until all processes are here, however long it takes; a failure of one ends the wait.

        No collective is involved, so no timeout ends it. `name` is used once in a run.
        """
        if self.store is None:
            return
        key = f"histocc/met/{name}"
        self.store.add(key, 1)
        while self.store.add(key, 0) < self.world_size:
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

    def leave_failed(self) -> None:
        """Let the others, who may be failing too, ask the store who was first before its process ends."""
        if self.store is not None:
            _meet(self, "histocc/failing", _FAILING_SECONDS, wait=self.is_main)


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
    """The CUDA device of this local rank where there are any, else the CPU.

    Raises UsageError if there are fewer GPUs than processes on this machine.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UsageError(
            f"this machine has {torch.cuda.device_count()} GPU(s) for this run, too few for process {local_rank + 1} "
            "on it; start at most one process per GPU (torchrun --nproc-per-node), or set LOCAL_RANK=0 where each "
            "process sees a GPU of its own alone"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def start_processes(wait_seconds: float = START_SECONDS) -> Processes:
    """Join the run that torchrun's environment describes; a single process joins nothing.

    Parameters
    ----------
    wait_seconds
        How long to wait for the other processes.

    Raises
    ------
    UsageError
        The environment is not complete, or the processes do not meet within that time.
    """
    rank, local_rank, world_size = environment_rank()
    device = pick_device(local_rank)
    if world_size == 1:
        return Processes(device=device)
    _require(world_size, "where the processes meet", "MASTER_ADDR", "MASTER_PORT")
    store = _meeting_place(rank, world_size, min(wait_seconds, _LONGEST_WAIT))
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
    processes.watch = Watch(processes, dist.new_group(backend="gloo", timeout=_LIFETIME))
    processes.watch.start()
    return processes


def _meeting_place(rank: int, world_size: int, seconds: float) -> dist.Store:
    """The store through which the processes find each other, once all of them are there.

    Raises UsageError where they are not within `seconds`, with what was tried.
    """
    address, port = os.environ["MASTER_ADDR"], _environment_number("MASTER_PORT")
    if not 1 <= port <= _LAST_PORT:
        raise UsageError(f"the environment says MASTER_PORT={port}, but ports go from 1 to {_LAST_PORT}; {_ADVICE}")
    try:
        socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"the environment says MASTER_ADDR={address}, but there is no machine of this name ({reason}); name the "
            "machine of process 0"
        ) from error

    outcome: list[Any] = []

    def meet() -> None:
        timeout = timedelta(seconds=seconds)
        try:
            outcome.append(next(dist.rendezvous("env://", rank=rank, world_size=world_size, timeout=timeout))[0])
        except Exception as error:  # Of a thread, whose errors nobody would see: the one who waits raises it.
            outcome.append(error)

    # torch keeps to its time limit while it waits, but not where something else answers at the address.
    waiting = threading.Thread(target=meet, daemon=True)
    waiting.start()
    waiting.join(seconds + _HANDSHAKE_SECONDS)
    found = outcome[0] if outcome else TimeoutError(f"no answer in {seconds:g} s")
    if not isinstance(found, Exception):
        return found
    tried = f"process {rank} of {world_size} tried to meet the others at MASTER_ADDR={address}, MASTER_PORT={port}"
    if "EADDRINUSE" in str(found):
        raise UsageError(f"{tried}, where another program listens already: choose another MASTER_PORT") from found
    raise UsageError(
        f"{tried}, for {seconds:g} s ({first_line(found)}). Start all of them within that time, or let them wait "
        "longer with --start-timeout SECONDS; on several machines, MASTER_ADDR is that of process 0"
    ) from found


class Watch(threading.Thread):
    """Ends this process if another one is gone, even while the main thread is stuck in a collective or on the GPU.

    The processes shake hands about once a second on a group of their own. Nobody is in a hurry there, so a busy process
    raises no alarm; one that is gone breaks the connection, which the others see at once. The main thread then has
    `grace_seconds` to notice for itself and to end in its own words.
    """

    def __init__(self, processes: Processes, group: dist.ProcessGroup, grace_seconds: float = 10.0) -> None:
        super().__init__(name="histocc-watch", daemon=True)
        self._processes = processes
        self._group = group
        self._grace_seconds = grace_seconds
        self._leaving = threading.Event()

    def leave(self) -> None:
        """Say that this process is done, and wait until all are."""
        self._leaving.set()
        self.join()

    def run(self) -> None:
        """Shake hands until all processes want to leave."""
        try:
            while True:
                staying = torch.tensor([int(not self._leaving.is_set())])
                dist.all_reduce(staying, group=self._group)
                if not staying.item():
                    return
                self._leaving.wait(1.0)
        except RuntimeError:
            time.sleep(self._grace_seconds)
            if self._processes.claim_failure():
                console.complain(LOST_PEER)
            os._exit(1)


def finish_processes(processes: Processes) -> None:
    """Leave the process groups in good order, once all processes are done; there are no collectives afterwards."""
    if processes.watch is None:
        return
    processes.watch.leave()
    # Nobody may close a connection while others still wait for the result of the last handshake.
    _meet(processes, "histocc/parting", _PARTING_SECONDS, wait=True)
    dist.destroy_process_group()
    # A worker thread of gloo takes the GIL to let go of a tensor that Python made, which may be some time after the
    # collective. If the interpreter is ending by then, the process aborts. Destroying a group leaves its threads alone;
    # only with the last reference do they end, and are waited for.
    processes.control = processes.watch = None
    # The store may live in the main process and must not go before the others have read their last from it.
    _meet(processes, "histocc/parted", _PARTING_SECONDS, wait=processes.is_main)


def _meet(processes: Processes, key: str, seconds: float, wait: bool) -> None:
    """Count this process at `key`; with `wait`, return once all are, or after so many seconds."""
    deadline = time.monotonic() + seconds
    try:
        here = processes.store.add(key, 1)
        while wait and here < processes.world_size and time.monotonic() < deadline:
            time.sleep(0.01)
            here = processes.store.add(key, 0)
    except (RuntimeError, OSError):
        # The store died with the process that held it. Nothing is left to be done together.
        return


class StopAgreement:
    """Turns stop requests that reach single processes into one decision of all, at the same step.

    Each step sends the own request around on the control group and reads the result of the step before, so that
    nobody waits: all processes see a request one step after it was sent, and all at the same step. Collectives of one
    group are matched in the order in which they were begun, so that others may run while this one is under way.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._pending: tuple[Any, torch.Tensor] | None = None

    def exchange(self, requested: bool) -> bool:
        """Tell the others whether a stop was requested here; return whether all stop now."""
        control = self._processes.control
        if control is None:
            return requested
        decision = False
        if self._pending is not None:
            work, flag = self._pending
            work.wait()
            decision = bool(flag.item())
        flag = torch.tensor([int(requested)])
        self._pending = (dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=control, async_op=True), flag)
        return decision
