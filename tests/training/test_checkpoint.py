"""Checkpoints that are damaged, hostile, of another shape, or do not fit on the disk."""

from __future__ import annotations

import os
import pickle
import re
import resource
import shutil
from types import SimpleNamespace

import pytest
import torch

from histocc.errors import UsageError
from histocc.files.atomic import link_or_copy, save_with_retry, write_atomically
from histocc.files.torch_files import DamagedFile, RefusedFile, read_torch_file
from histocc.training.checkpoint import CheckpointFolder
from tests.running import Running, script


def state(step: int, value: float = 1.0) -> dict:
    return {"model": {"weight": torch.full((40, 3), value)}, "step": step, "best_val_loss": 0.5}


@pytest.fixture
def folder(tmp_path) -> CheckpointFolder:
    folder = CheckpointFolder(tmp_path)
    folder.save(state(10))
    folder.save(state(20))
    return folder


class Trap:
    """Unpickled, it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# -- reading -----------------------------------------------------------------------------------------------------------


def damage(path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()  # last.bin and the file of its step are the same file
    if how == "truncated":
        content = content[: len(content) // 2]
    elif how == "emptied":
        content = b""
    elif how == "zeroed":
        content = bytes(len(content))
    elif how == "bit flipped":
        middle = content.index(torch.full((40, 3), 1.0).numpy().tobytes()) + 100
        content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes(content)


DAMAGES = ("truncated", "emptied", "zeroed", "bit flipped")


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_last_checkpoint_is_named_and_the_newest_whole_one_taken(folder, how):
    damage(folder.folder / "last.bin", how)
    damage(folder.folder / "20.bin", how)
    warnings = []
    found, path = folder.load_newest(warn=warnings.append)
    assert (path.name, found["step"]) == ("10.bin", 10)
    assert len(warnings) == 3
    assert "last.bin: the file " in warnings[0]
    assert "20.bin: the file " in warnings[1]
    assert warnings[2] == f"resuming from {path} instead"


@pytest.mark.parametrize("how", DAMAGES)
def test_the_best_checkpoint_is_the_last_resort(folder, how):
    folder.save_best(state(5))
    for name in ("last.bin", "10.bin", "20.bin"):
        damage(folder.folder / name, how)
    assert folder.load_newest(warn=lambda _: None)[1].name == "best.bin"
    damage(folder.folder / "best.bin", how)
    with pytest.raises(DamagedFile, match=r"No checkpoint in the save folder is whole(.|\n)*last.bin(.|\n)*best.bin"):
        folder.load_newest()


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path):
    path = tmp_path / "file.bin"
    torch.save(state(3), path)
    content = path.read_bytes()
    for position in range(0, len(content), 11):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        try:
            found = read_torch_file(path)
        except UsageError:
            continue
        assert torch.equal(found["model"]["weight"], state(3)["model"]["weight"]), position
        assert found["step"] == 3


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["torch", "torch legacy", "pickle", "pickle 2"])
def test_a_pickled_object_is_refused_and_not_executed(folder, form):
    trap = {**state(30), "settings": Trap(folder.folder / "trapped")}
    path = folder.folder / "last.bin"
    path.unlink()
    if form.startswith("torch"):
        torch.save(trap, path, _use_new_zipfile_serialization=form == "torch")
    else:
        path.write_bytes(pickle.dumps(trap, protocol=2 if form == "pickle 2" else 4))
    with pytest.raises(RefusedFile, match=r"last\.bin: the file holds more than tensors and plain values"):
        folder.load_newest()
    assert not (folder.folder / "trapped").exists()


def test_a_file_of_something_else_is_named(folder):
    (folder.folder / "last.bin").unlink()
    torch.save({"weight": torch.ones(2)}, folder.folder / "last.bin")
    warnings = []
    assert folder.load_newest(warn=warnings.append)[1].name == "20.bin"
    assert "last.bin: this is no checkpoint of a training run" in warnings[0]
    with pytest.raises(UsageError, match="there is no such file"):
        read_torch_file(folder.folder / "none.bin")


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert CheckpointFolder(tmp_path).load_newest() is None


def test_the_best_state_is_taken_where_it_is_the_only_one(tmp_path):
    CheckpointFolder(tmp_path).save_best(state(1))
    loaded, path = CheckpointFolder(tmp_path).load_newest()
    assert (loaded["step"], path.name) == (1, "best.bin")


def test_a_best_state_that_could_not_be_written_keeps_no_later_one_away(tmp_path, monkeypatch, capsys):
    from histocc.files import atomic
    from histocc.training import checkpoint
    from histocc.training.context import Plan, RunContext
    from histocc.training.loop import TrainingLoop

    model = torch.nn.Linear(1, 1)
    losses = iter([3.0, 1.0, 2.0, 2.5])
    monkeypatch.setattr(atomic, "_RETRY_SECONDS", 0.0)
    roomy = shutil.disk_usage(tmp_path)

    def evaluate() -> dict[str, float]:
        loss = next(losses)
        free = 0 if loss == 1.0 else roomy.free
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: roomy._replace(free=free))
        return {"val_loss": loss}

    loop = TrainingLoop(
        model=model,
        compute_loss=lambda module, batch: {"loss": module(batch["input_ids"]).sum()},
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        scheduler=None,
        plan=Plan(4, eval_interval=1),
        context=RunContext.on("cpu", tmp_path),
        evaluate=evaluate,
        checkpoints=CheckpointFolder(tmp_path),
        show_progress=False,
    )
    loop.run(lambda epoch: [{"input_ids": torch.ones(2, 1)}] * 4)
    assert "the best state (step 2) could not be saved" in capsys.readouterr().err
    best = read_torch_file(tmp_path / "best.bin")
    assert (best["step"], best["best_val_loss"]) == (3, 2.0)


# -- writing -----------------------------------------------------------------------------------------------------------


def names(folder: CheckpointFolder) -> set[str]:
    return {p.name for p in folder.folder.iterdir()}


def test_the_newest_are_kept_and_last_and_best_always(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (1, 2, 3, 12):
        folder.save(state(step), best=step == 2)
    assert names(folder) == {"3.bin", "12.bin", "last.bin", "best.bin"}
    assert read_torch_file(tmp_path / "best.bin")["step"] == 2
    assert (tmp_path / "last.bin").samefile(tmp_path / "12.bin")
    assert (tmp_path / "last.bin").stat().st_mode & 0o777 == 0o666 & ~current_umask()
    # Resumed further back: what was just written is not what goes.
    folder.save(state(5))
    assert names(folder) == {"3.bin", "5.bin", "12.bin", "last.bin", "best.bin"}


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_without_hard_links_files_are_copied(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("this file system has no links")

    (tmp_path / "1.bin").write_bytes(b"one")
    monkeypatch.setattr(os, "link", no_links)
    link_or_copy(tmp_path / "1.bin", tmp_path / "last.bin")
    assert (tmp_path / "last.bin").read_bytes() == b"one"
    assert not (tmp_path / "last.bin").samefile(tmp_path / "1.bin")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"new")
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_leftovers_of_a_kill_are_removed_and_nothing_else(folder):
    for name in (".last.bin.4711.tmp", ".20.bin.a_bc.tmp", ".logs.csv.x1.tmp", ".notes.tmp", "mine.tmp"):
        (folder.folder / name).touch()
    folder.remove_leftovers()
    assert names(folder) == {"10.bin", "20.bin", "last.bin", ".notes.tmp", "mine.tmp"}


def test_free_space_is_looked_at_before_writing(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="MB are needed and 0 MB are free"):
        folder.save(state(30))
    assert names(folder) == {"10.bin", "20.bin", "last.bin"}


def test_a_failed_write_is_tried_twice_and_then_reported(capsys, monkeypatch):
    monkeypatch.setattr("histocc.files.atomic._RETRY_SECONDS", 0.0)
    calls = []

    def fail():
        calls.append(1)
        raise RuntimeError("[enforce fail at inline_container.cc:1] unexpected pos 1 vs 2")

    assert "unexpected pos" in str(save_with_retry(fail, "step 7"))
    assert len(calls) == 2
    message = "Warning: step 7 could not be saved: .*unexpected pos.* Earlier files are untouched, and training goes on"
    assert re.search(message, capsys.readouterr().err)


# -- whole runs --------------------------------------------------------------------------------------------------------


def with_small_files(argv: list[str], most_bytes: int) -> int:
    """Target: a run in which no file can grow beyond `most_bytes`, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    return script(argv)


def test_a_full_disk_costs_checkpoints_but_no_training(argv, tmp_path):
    folder = tmp_path / "run"
    flags = ["--save-interval", 2, "--num-epochs", 1]
    first = Running(script, argv(folder, *flags, "--max-steps", 3), log=tmp_path / "first.log")
    assert first.wait() == 0, first.output
    before = {name: (folder / name).read_bytes() for name in ("2.bin", "3.bin", "last.bin", "best.bin")}

    full = Running(with_small_files, argv(folder, *flags, "--max-steps", 5), 50_000, log=tmp_path / "full.log")
    assert full.wait() == 1, full.output
    assert "step 5 of 5" in full.output
    assert "Warning: step 4 could not be saved: " in full.output
    assert "Error: the state at step 5 could not be saved in " in full.output
    assert {p.name: p.read_bytes() for p in folder.glob("*.bin")} == before
    assert not list(folder.glob(".*")), "leftovers of failed writes"

    again = Running(script, argv(folder, *flags, "--max-steps", 5), log=tmp_path / "again.log")
    assert again.wait() == 0, again.output
    assert "step 3, from" in again.output
    assert read_torch_file(folder / "last.bin")["step"] == 5


def test_a_run_says_what_is_wrong_with_its_checkpoint(argv, tmp_path):
    folder = tmp_path / "run"

    def run(name: str, code: int, *flags: object) -> str:
        running = Running(script, argv(folder, "--max-steps", 3, *flags), log=tmp_path / name)
        assert running.wait() == code, running.output
        assert "Traceback" not in running.output
        return running.output

    run("first", 0, "--save-interval", 2)
    shape = run("shape", 2, "--decoder-dim-feedforward", 8)
    assert "last.bin is from a run of another shape and cannot be resumed here" in shape
    assert "Give another save folder, or the flags that the run was started with" in shape

    damage(folder / "last.bin", "truncated")
    (folder / "3.bin").unlink()
    damaged = run("damaged", 0)
    assert damaged.count("last.bin: the file ") == 1
    assert "2.bin instead" in damaged
    assert read_torch_file(folder / "last.bin")["step"] == 3

    torch.save({**read_torch_file(folder / "last.bin"), "key": Trap(tmp_path / "trapped")}, folder / "last.bin")
    hostile = run("hostile", 2)
    assert hostile.count("last.bin: the file holds more than tensors and plain values (posix.mkdir)") == 1
    assert not (tmp_path / "trapped").exists()
