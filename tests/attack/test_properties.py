"""Whatever an entry of a file holds, the answer is a message or a correct result."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from histocc.errors import UsageError
from histocc.files.entries import Entries, key
from histocc.files.key import read_key
from histocc.model_assets import encoder_config
from histocc.training.checkpoint_fit import fit
from histocc.training.checkpoint_schema import Checkpoint
from histocc.training.reporting import LogFile
from histocc.training.schedule import linear_schedule

FILE = Path("run/last.bin")
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def objects(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """A small model, its optimizer and its schedule."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    return model, optimizer, linear_schedule(optimizer, 2, 10)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> None:
    """One step of training."""
    optimizer.zero_grad()
    model(torch.ones(5, 3)).square().mean().backward()
    optimizer.step()
    scheduler.step()


@functools.cache
def good() -> dict[str, Any]:
    """What a run of two steps saves."""
    model, optimizer, scheduler = objects()
    for _ in range(2):
        step(model, optimizer, scheduler)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "step": 2,
        "key": {"a": 0, "b": 1},
        "precision": {"dtype": "torch.float32", "scaler": None, "skipped_steps": 0},
        "best_val_loss": 0.5,
        "settings": {"training_rows": 40, "batch_size": 8, "learning_rate": 1e-2, "num_classes": [3, 4]},
        "position": {
            **{"epoch": 0, "rows_done": 16, "seed": 42, "world_size": 1, "loss_sum": 1.5, "rows": 16.0, "counts": {}},
            **{"batches": 2, "seconds": 0.1, "seconds_data": 0.01},
        },
    }


def outcome(action: Callable[[], Any]) -> tuple[Any, str]:
    """What an action gives, and '' or the message with which it refuses to."""
    try:
        return action(), ""
    except UsageError as error:
        return None, str(error)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all entries within a value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for name, part in value.items():
            found += places(part, (*path, name))
    elif isinstance(value, list):
        for i, part in enumerate(value):
            found += places(part, (*path, i))
    return found


NUMBERS = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 2**63, 10**30, 10**4000, math.nan, math.inf, -0.0, True])
)
SHAPES = st.lists(st.integers(0, 5), max_size=3)


@st.composite
def tensors(draw: Any) -> torch.Tensor:
    """Tensors of all kinds that a file can hold."""
    shape = draw(st.one_of(SHAPES, st.sampled_from([[4, 3], [4], [2, 4], [2], []])))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.bool, torch.cfloat]))
    made = torch.ones(shape, dtype=dtype)
    kind = draw(st.sampled_from(["plain", "expanded", "meta", "sparse", "transposed", "nan", "negative", "parameter"]))
    if kind == "expanded":
        return torch.ones((), dtype=dtype).expand([*shape, 10**6])
    if kind == "meta":
        return made.to("meta")
    if kind == "sparse" and shape:
        return made.to_sparse()
    if kind == "transposed" and len(shape) == 2:
        return made.t().contiguous().t()
    if kind == "nan" and dtype.is_floating_point:
        return made * math.nan
    if kind == "negative" and dtype.is_signed:
        return -made
    if kind == "parameter" and dtype.is_floating_point:
        return nn.Parameter(made)
    return made


NAMES = st.one_of(st.text(max_size=5), st.integers(-3, 9), st.sampled_from([None, (1, 2), "params", "step", "exp_avg"]))
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=9), st.binary(max_size=9), tensors()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=5,
)


def like(value: Any) -> list[Any]:
    """Values much like a good one, and yet others."""
    if isinstance(value, torch.Tensor):
        one = torch.ones((), dtype=value.dtype)
        return [
            *(one.expand(value.shape), value.flatten(), value[:1] if value.dim() else value[None], value.double()),
            *(value.to("meta"), value.to_sparse() if value.dim() else value * 2, -value - 1, value * math.nan),
            *(value.t().contiguous().t() if value.dim() == 2 else value.half(), float(value.sum()), value.tolist()),
        ]
    if isinstance(value, (bool, str)):
        return [not value, str(value) + "x", [value], 1, None]
    if isinstance(value, (int, float)):
        near = [-value - 1, value + 41, value + 10**15, value + 0.5]
        return [*near, str(value), [value], math.nan, math.inf, None, True]
    if isinstance(value, dict):
        return [list(value), list(value.items()), {}, None, {str(name): part for name, part in value.items()}]
    if value is None:
        return [False, 0, {}, [], "x"]
    return [[], [*value, *value], dict(enumerate(value)), None, "x"]


def at(state: Any, path: tuple[Any, ...]) -> Any:
    """The value in one place."""
    return functools.reduce(lambda value, name: value[name], path, state)


CHANGES = st.sampled_from(places(good())).flatmap(
    lambda path: st.tuples(st.just(path), st.one_of(st.sampled_from(like(at(good(), path))), ANYTHING))
)


def with_entry(state: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The state with another value in one place."""
    changed = copy.deepcopy(state)
    *outer, last = path
    inner = changed
    for name in outer:
        inner = inner[name]
    # An optimizer changes the tensors that it is given, which may be those of the good state.
    inner[last] = copy.deepcopy(value)
    return changed


@given(CHANGES)
@MANY
def test_any_entry_of_a_checkpoint_gives_a_message_or_a_run_that_goes_on(change):
    state = with_entry(good(), *change)
    model, optimizer, scheduler = objects(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint, message = outcome(lambda: Checkpoint.of(state, FILE))
    if not message:
        fitting, message = outcome(lambda: fit(checkpoint, model, optimizer, scheduler))
    if message:
        assert message.startswith("run/last.bin")
        assert len(message) < 3000
        # Nothing is changed.
        assert not optimizer.state
        assert scheduler.last_epoch == 0
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        return
    fitting.load(model, optimizer, scheduler)
    step(model, optimizer, scheduler)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    position = checkpoint.position
    assert 0 <= checkpoint.step <= 10**12
    assert 0 <= position.rows_done <= 40
    assert position.world_size >= 1


def test_a_good_checkpoint_goes_on_to_the_bit():
    model, optimizer, scheduler = objects()
    for _ in range(3):
        step(model, optimizer, scheduler)
    other = objects(seed=1)
    fit(Checkpoint.of(good(), FILE), *other).load(*other)
    step(*other)
    assert scheduler.state_dict() == other[2].state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other[0].state_dict()[name])


@pytest.mark.parametrize("path", [path for path in places(good()) if path not in (("key",), ("settings",))])
def test_an_entry_that_is_left_out_gives_a_message_or_a_run_that_goes_on(path):
    *outer, last = path
    state = copy.deepcopy(good())
    inner: Any = state
    for name in outer:
        inner = inner[name]
    del inner[last]
    needed = {"model", "optimizer", "scheduler", "step"}
    other = objects(seed=1)
    _, message = outcome(lambda: fit(Checkpoint.of(state, FILE), *other).load(*other))
    if message:
        assert message.startswith("run/last.bin")
        return
    assert path[0] not in needed or len(path) > 1
    step(*other)


@given(st.dictionaries(st.one_of(st.text(max_size=4), NUMBERS), st.one_of(NUMBERS, st.text(max_size=2)), max_size=5))
@MANY
def test_a_key_in_a_checkpoint_is_refused_or_gives_each_class_once(entries):
    found = Entries(FILE, "")
    checked = found.check("key", entries, key(4))
    if found:
        with pytest.raises(UsageError, match=r"^run/last\.bin"):
            found.raise_if_any()
        return
    assert sorted(checked.values()) == sorted(set(checked.values()))
    assert all(type(index) is int and 0 <= index < 4 for index in checked.values())
    assert len(checked) == len(entries)


CELLS = st.one_of(
    st.text(max_size=6), st.integers(-2, 6).map(str), st.sampled_from(["system_code", "code", "1_0", "１", "9" * 5000])
)


@given(st.lists(st.lists(CELLS, max_size=3), max_size=5), st.booleans())
@MANY
def test_a_key_file_is_refused_or_numbers_its_codes(tmp_path, rows, header):
    lines = [["system_code", "code"], *rows] if header else rows
    path = tmp_path / "key.csv"
    path.write_bytes("\n".join(",".join(line) for line in lines).encode("utf-8", "surrogatepass"))
    found, message = outcome(lambda: read_key(path))
    if message:
        assert str(path) in message
        return
    assert sorted(found.values()) == list(range(len(found)))
    assert len(found) > 0


@given(st.one_of(st.binary(max_size=60), st.lists(st.lists(CELLS, max_size=3), max_size=4)), st.integers(0, 5))
@MANY
def test_a_log_is_refused_and_left_or_cut_at_its_steps(tmp_path, content, last):
    path = tmp_path / "logs.csv"
    if not isinstance(content, bytes):
        lines = [",".join(line) for line in [["step", "val_loss"], *content]]
        content = "\n".join(lines).encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    log = LogFile(path)
    before, message = outcome(lambda: log.numbers("step"))
    if message:
        assert str(path) in message
        assert outcome(lambda: log.drop_after(last))[1] == message
        assert path.read_bytes() == content
        return
    log.drop_after(last)
    assert log.numbers("step") == [each for each in before if each[0] <= last]


SETTINGS = st.dictionaries(
    st.sampled_from(["hidden_size", "num_attention_heads", "hidden_act", "num_hidden_layers", "nonsense"]), ANYTHING
)


@given(SETTINGS)
@settings(max_examples=100, deadline=None)
def test_settings_of_an_encoder_are_refused_or_make_one(entries):
    config, message = outcome(lambda: encoder_config(entries, "config.json"))
    if message:
        assert message.startswith("config.json")
        return
    assert config.hidden_size % config.num_attention_heads == 0
