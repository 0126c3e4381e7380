"""Whether a checkpoint fits the objects of a run: every weight and every moment, before any of them is touched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from histocc.errors import UsageError
from histocc.files import entries
from histocc.files.entries import Check, Entries
from histocc.files.tensors import tensor, weight_differences
from histocc.training.checkpoint_schema import ADVICE, Checkpoint

_MOST_DIFFERENCES = 3
# How this process computes, which is no part of a run.
_OWN = ("fused", "foreach", "capturable", "differentiable")
# Another way to compute the next step: it is decided by the code, not by a file.
_SAME = ("amsgrad", "maximize", "nesterov", "decoupled_weight_decay")
# Beyond these the next update is no number: a mean without an end, a division by nothing.
_RANGES = {
    "eps": entries.number(1e-30, 1),
    "weight_decay": entries.number(0, 1000),
    "betas": entries.list_of(entries.number(0, 1 - 1e-9), 2),
}


@dataclass(frozen=True)
class FittingState:
    """What a checkpoint gives to model, optimizer and scheduler, known to fit them."""

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    scheduler: Mapping[str, Any] | None

    def load(self, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler | None) -> None:
        """Put it into the objects that it was fitted to."""
        model.load_state_dict(self.model)
        optimizer.load_state_dict(self.optimizer)
        if scheduler is not None:
            scheduler.load_state_dict(self.scheduler)


def fit(
    checkpoint: Checkpoint,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    *,
    complete: bool = True,
) -> FittingState:
    """What the checkpoint gives to these objects, none of which is changed.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    model
        Unwrapped.
    optimizer
        Of the model's parameters, or some of them.
    scheduler
        Of the optimizer; None where there is none.
    complete
        Every parameter of the optimizer is trained, so that none may lack its moments.

    Raises
    ------
    UsageError
        Names or shapes of the weights are others (at most three are named), or an entry of optimizer or scheduler
        cannot be used with these parameters.
    """
    _check_shapes(checkpoint, weight_differences(model, checkpoint.model))
    found = Entries(checkpoint.source, ADVICE)
    _check_weights(found, checkpoint.model, model)
    groups = _groups(found, checkpoint, optimizer)
    state = dict(_moments(found, checkpoint, model, optimizer, complete))
    schedule = _schedule(found, checkpoint, scheduler)
    found.raise_if_any()
    return FittingState(checkpoint.model, {"state": state, "param_groups": groups}, schedule)


def _check_shapes(checkpoint: Checkpoint, differences: Sequence[str]) -> None:
    if not differences:
        return
    shown = "; ".join(differences[:_MOST_DIFFERENCES])
    more = len(differences) - _MOST_DIFFERENCES
    shown += f"; and {more:,} more differences" if more > 0 else ""
    raise UsageError(
        f"{checkpoint.source} is from a run of another shape and cannot be resumed here: {shown}. "
        "Give another save folder, or the flags that the run was started with"
    )


def _check_weights(found: Entries, weights: Mapping[str, Tensor], model: nn.Module) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, own in model.state_dict().items():
        # What is no parameter, such as a mask, may be infinite.
        check = tensor(own.shape, own.dtype, finite=name in parameters)
        found.check(f"model.{name}", weights[name], check)


# -- optimizer ---------------------------------------------------------------------------------------------------------


def _groups(found: Entries, checkpoint: Checkpoint, optimizer: Optimizer) -> list[dict[str, Any]]:
    """The groups to load: what the file says of rates and decay, and this process's way to compute."""
    saved_groups = checkpoint.optimizer["param_groups"]
    sizes = [len(group["params"]) for group in saved_groups]
    own_sizes = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != own_sizes:
        _check_shapes(checkpoint, [f"its optimizer has {_sizes(sizes)} there and {_sizes(own_sizes)} here"])
    groups = []
    for i, (saved, own) in enumerate(zip(saved_groups, optimizer.param_groups)):
        group = {"params": saved["params"], "lr": saved["lr"]}
        if "initial_lr" in saved:
            group["initial_lr"] = saved["initial_lr"]
        for name, value in own.items():
            if name in group or name == "initial_lr":
                continue
            check = entries.one_of(value) if name in _SAME else _RANGES.get(name, _like(value))
            kept = name in _OWN or name not in saved
            group[name] = value if kept else found.take(saved, name, check, f"optimizer.param_groups[{i}].")
        groups.append(group)
    return groups


def _sizes(sizes: Sequence[int]) -> str:
    return " and ".join(f"{size:,}" for size in sizes) + " parameters"


def _moments(
    found: Entries, checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer, complete: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The state of each parameter, by the number that the file gives it."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    saved = checkpoint.optimizer["state"]
    numbers = [number for group in checkpoint.optimizer["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if len(set(numbers)) < len(numbers):
        found.refuse("optimizer.param_groups", checkpoint.optimizer["param_groups"], "each parameter once")
        return
    for number in saved.keys() - set(numbers):
        found.note(f"the entry optimizer.state[{number}] belongs to no parameter")
    places: dict[int, str] = {}
    for number, parameter in zip(numbers, parameters):
        inside = f"optimizer.state[{number}]"
        if number not in saved:
            # A run whose steps were all skipped, or not made yet, has no moments at all.
            if saved and complete:
                found.note(f"the entry {inside} is missing, the moments of {names[id(parameter)]}")
            continue
        state = _state_of(found, saved[number], parameter, optimizer, f"{inside}.")
        for name, value in state.items():
            if isinstance(value, Tensor) and value.numel():
                place = value.untyped_storage().data_ptr()
                if places.setdefault(place, f"{inside}.{name}") != f"{inside}.{name}":
                    found.note(f"the entry {inside}.{name} shares its memory with {places[place]}")
        yield number, state


def _state_of(
    found: Entries, saved: Mapping[str, Any], parameter: Tensor, optimizer: Optimizer, inside: str
) -> dict[str, Any]:
    """The checked state of one parameter."""
    in_place = parameter.is_contiguous()
    moment = tensor(parameter.shape, parameter.dtype, contiguous=in_place)
    if isinstance(optimizer, Adam):
        checks: dict[str, Check[Any]] = {
            "step": _step_count,
            "exp_avg": moment,
            "exp_avg_sq": tensor(parameter.shape, parameter.dtype, contiguous=in_place, low=0.0),
        }
        if any(group["amsgrad"] for group in optimizer.param_groups):
            checks["max_exp_avg_sq"] = checks["exp_avg_sq"]
        return {name: found.take(saved, name, check, inside) for name, check in checks.items()}
    return {
        name: found.check(inside + name, value, moment if _is_moment(value) else _step_count_or_plain)
        for name, value in saved.items()
    }


def _is_moment(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _step_count(value: Any) -> Tensor | float:
    """A number of steps, as a number or a tensor without dimensions."""
    if isinstance(value, Tensor):
        count = tensor((), low=0.0)(value)
        entries.number(0, entries.MOST)(float(count))
        return count.to(torch.float32)
    return entries.number(0, entries.MOST)(value)


def _step_count_or_plain(value: Any) -> Any:
    return _step_count(value) if isinstance(value, Tensor) else entries.plain(value)


# -- scheduler ---------------------------------------------------------------------------------------------------------


def _schedule(found: Entries, checkpoint: Checkpoint, scheduler: LRScheduler | None) -> dict[str, Any] | None:
    """The state to load: the own one, with the numbers of the file."""
    if scheduler is None:
        return None
    saved = checkpoint.scheduler
    if saved is None:
        found.refuse("scheduler", saved, "the state of the learning rate's schedule")
        return None
    inside = "scheduler."
    state = dict(scheduler.state_dict())
    for name, own in state.items():
        # A function's own state; those of this package have none.
        if name in saved and name != "lr_lambdas":
            state[name] = found.take(saved, name, _like(own), inside)
    if "last_epoch" in state:
        # It stands still in steps that float16 skips, and never runs ahead.
        state["last_epoch"] = found.take(saved, "last_epoch", entries.whole(0, checkpoint.step), inside)
    started = [group.get("initial_lr") for group in checkpoint.optimizer["param_groups"]]
    if None not in started and state.get("base_lrs") not in (None, started):
        found.refuse("scheduler.base_lrs", state["base_lrs"], f"{started}, as in optimizer.param_groups,")
    return state


def _like(own: Any) -> Check[Any]:
    """What may stand in the place of an own value: the same type, the same number of parts."""
    if isinstance(own, bool):
        return entries.flag
    if isinstance(own, int):
        return entries.whole(-entries.MOST)
    if isinstance(own, float):
        return entries.number() if math.isfinite(own) else entries.figure
    if isinstance(own, (list, tuple)):
        checks = [_like(part) for part in own]

        def each(value: Any) -> Any:
            parts = entries.list_of(lambda part: part, len(checks))(value)
            return type(own)(entries.part(f"[{i}]", part, checks[i]) for i, part in enumerate(parts))

        return each
    if isinstance(own, Mapping):

        def members(value: Any) -> dict[str, Any]:
            given = entries.mapping(value)
            return {
                name: entries.part(f"[{name!r}]", given[name], _like(part)) if name in given else part
                for name, part in own.items()
            }

        return members
    return entries.plain
