"""No import runs upwards: loading a room loads none of the rooms above it."""

import json
import pkgutil
import subprocess
import sys

import pytest

import histocc

# From the bottom to the top. Rooms of one line do not know each other.
ROOMS = [
    ["errors"],
    ["datasets", "attacker"],
    ["files"],
    ["processes"],
    ["formatter"],
    ["loss", "layers", "metrics"],
    ["weights"],
    ["model_assets"],
    ["stored_model", "decoding"],
    ["dataloader"],
    ["preparation"],
    ["training"],
    ["report"],
    ["seq2seq_mixer_engine", "trainer"],
    ["prediction"],
    ["prediction_assets"],
    ["runs"],
    ["utils"],
    ["__main__"],
]

LOADED = """
import importlib, json, os, sys
def child(names):
    for name in names:
        importlib.import_module(name)
    print(json.dumps(sorted(name for name in sys.modules if name.startswith("histocc."))), flush=True)
import numpy, pandas, torch, transformers, tqdm
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        child(json.loads(line))
        os._exit(0)
    os.waitpid(pid, 0)
"""


def modules_of(room):
    module = f"histocc.{room}"
    found = [info.name for info in pkgutil.walk_packages(histocc.__path__, "histocc.")]
    return [name for name in found if name == module or name.startswith(module + ".")]


@pytest.fixture(scope="module")
def loaded():
    """Modules of the package that each room loads, in a process that has loaded nothing else of it."""
    rooms = [room for line in ROOMS for room in line]
    asked = "\n".join(json.dumps(modules_of(room)) for room in rooms)
    ran = subprocess.run([sys.executable, "-c", LOADED], input=asked, capture_output=True, text=True, check=True)
    return dict(zip(rooms, map(json.loads, ran.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("room", [room for line in ROOMS for room in line])
def test_a_room_loads_nothing_from_above(room, loaded):
    level = next(i for i, line in enumerate(ROOMS) if room in line)
    forbidden = {other for line in ROOMS[level + 1 :] for other in line} | (set(ROOMS[level]) - {room})
    seen = {name.split(".")[1] for name in loaded[room]}
    assert room in seen
    assert not seen & forbidden


def test_every_room_has_its_place():
    rooms = {info.name for info in pkgutil.iter_modules(histocc.__path__)}
    assert rooms == {room for line in ROOMS for room in line}


def test_the_training_machinery_knows_no_coding_system_and_no_model(loaded):
    assert not {"formatter", "model_assets", "weights"} & {name.split(".")[1] for name in loaded["training"]}
