"""Output that fails loses nothing: what cannot be said is reported where it can be, and training goes on."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.running import ENVIRONMENT, Running, contents, script

ROOT = Path(__file__).parents[2]


def without_output(argv: list[str], how: str) -> int:
    """Target: the script, whose output goes nowhere in one of several ways."""
    if how == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    elif how == "both full":
        for number in (1, 2):
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    elif how == "a broken pipe":
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
    elif how == "closed":
        os.close(1)
    elif how == "never there":
        sys.stdout = None
    elif how == "ASCII alone":
        sys.stdout.reconfigure(encoding="ascii", errors="strict")
    code = script(argv)
    atexit._run_exitfuncs()
    return code


@pytest.mark.parametrize("how", ["full", "both full", "a broken pipe", "closed", "never there", "ASCII alone"])
def test_a_run_whose_output_fails_is_trained_and_saved_to_its_end(how, argv, tmp_path):
    folder = tmp_path / "gård"
    run = Running(without_output, argv(folder, "--max-steps", 3), how, log=tmp_path / "log")
    assert run.wait() == 0, run.output
    assert torch.load(folder / "last.bin", weights_only=True)["step"] == 3
    assert len((folder / "logs.csv").read_text().splitlines()) == 2
    told = run.output.count("Warning: stdout cannot be written to (")
    if how == "ASCII alone":
        assert told == 0
        assert "Trained to step 3. The model is in " in run.output
        assert "g\\xe5rd" in run.output
    else:
        # A closed stdout gets a place before anything else can take its number.
        assert told == (0 if how in ("both full", "closed") else 1)
    assert "Traceback" not in run.output


def test_the_exit_code_of_a_run_is_its_own_where_the_disk_under_its_output_is_full(argv, tmp_path):
    command = [sys.executable, "train_mixer.py", *argv(tmp_path / "run", "--max-steps", 2)]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert "stdout cannot be written to (No space left on device); everything else goes on" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert torch.load(tmp_path / "run" / "last.bin", weights_only=True)["step"] == 2


def deaf_and_mute(argv: list[str]) -> int:
    """Target: the script, where a signal cannot be answered."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
    return script(argv)


def test_a_signal_that_cannot_be_answered_saves_all_the_same(argv, tmp_path):
    run = Running(deaf_and_mute, argv(tmp_path / "run", "--num-epochs", 1000), log=tmp_path / "log")
    run.wait_for("step 2 of")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0, run.output
    assert "Stopped by SIGTERM at step " in run.output


def on_a_terminal_that_goes_away(argv: list[str]) -> int:
    """Target: the script on a terminal whose window is closed after the third step."""
    from histocc.training.loop import TrainingLoop

    window, terminal = os.openpty()
    os.dup2(terminal, 2)
    after_step = TrainingLoop._after_step

    def close(self, epoch_ended):
        after_step(self, epoch_ended)
        if self.step == 3:
            os.close(window)

    TrainingLoop._after_step = close
    return script(argv)


def test_a_run_outlives_its_terminal(argv, tmp_path):
    run = Running(on_a_terminal_that_goes_away, argv(tmp_path / "run", "--max-steps", 6), log=tmp_path / "log")
    assert run.wait() == 0, run.output
    assert torch.load(tmp_path / "run" / "last.bin", weights_only=True)["step"] == 6


@pytest.mark.parametrize("name", ["train", "train_mixer", "finetune"])
def test_ctrl_c_in_the_imports_prints_nothing(name, tmp_path):
    # In the place of the first library that takes long.
    (tmp_path / "torch.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, str(ROOT / f"{name}.py"), "--demo"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        # As from a terminal: what a shell starts in the background ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert done.returncode == -signal.SIGINT
    assert (done.stdout, done.stderr) == ("", "")


# -- full disks --------------------------------------------------------------------------------------------------------


def on_a_full_disk(argv: list[str], full: str) -> int:
    """Target: the script, where there is no room for one file, which is noticed when all of it has been written."""
    replace = os.replace

    def refuse(source, target):
        if Path(target).name == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    os.replace = refuse
    return script(argv)


def test_a_resume_on_a_full_disk_loses_no_figures(argv, tmp_path):
    folder = tmp_path / "run"
    flags = ["--eval-interval", 2, "--save-interval", 2, "--num-epochs", 1]
    first = Running(script, argv(folder, *flags, "--max-steps", 4), log=tmp_path / "first")
    assert first.wait() == 0, first.output
    # Killed after the figures of step 4 and before its checkpoint.
    for name in ("4.bin", "last.bin"):
        (folder / name).unlink()
    before = contents(folder)
    full = Running(on_a_full_disk, argv(folder, *flags), "logs.csv", log=tmp_path / "full")
    assert full.wait() == 2
    assert full.output == (
        f"Error: {folder / 'logs.csv'} has figures beyond step 2, where the run goes on, and they cannot be taken out: "
        "No space left on device. Nothing is lost; make room, and give the same command again\n"
    )
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["key.csv", "args.yaml"])
def test_a_start_on_a_full_disk_leaves_nothing_that_refuses_the_next(name, argv, tmp_path):
    table = tmp_path / "own.csv"
    table.write_text("occ1,lang,code\n" + "".join(f"farmer {i},en,{i:05}\n" for i in range(30)))
    folder = tmp_path / "run"
    system = ["--formatter", "gpf", "--target-cols", "code", "--train-data", table, "--val-data", table]
    full = Running(on_a_full_disk, argv(folder, *system, "--max-steps", 1), name, log=tmp_path / "full")
    assert full.wait() == 2
    assert full.output == f"Error: {folder / name} cannot be written: No space left on device\n"
    assert not (folder / name).exists()
    again = Running(script, argv(folder, *system, "--max-steps", 1), log=tmp_path / "again")
    assert again.wait() == 0, again.output
    assert len((folder / "key.csv").read_text().splitlines()) == 31


def test_a_refused_start_leaves_no_key(argv, tmp_path):
    """Training data whose codes would be the key, and validation data that have none of them."""
    for name, code in (("a.csv", "1"), ("b.csv", "2")):
        (tmp_path / name).write_text(f"occ1,lang,code\nfarmer,en,{code}\n")
    folder = tmp_path / "run"
    system = ["--formatter", "gpf", "--target-cols", "code"]
    refused = argv(folder, *system, "--train-data", tmp_path / "a.csv", "--val-data", tmp_path / "b.csv")
    run = Running(script, refused, log=tmp_path / "refused")
    assert run.wait() == 2
    assert "a code that is not in the key" in run.output
    assert not folder.exists()


# -- kills -------------------------------------------------------------------------------------------------------------

FLAGS = ["--max-steps", 8, "--save-interval", 2, "--eval-interval", 3, "--keep-checkpoints", 2]


def killed_at(argv: list[str], name: str, nth: int, after: bool) -> int:
    """Target: the script, killed when it gives a file its name for the `nth` time: just before, or just after."""
    replace, seen = os.replace, []

    def deadly(source, target):
        if Path(target).name == name:
            seen.append(target)
        if len(seen) == nth and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if len(seen) == nth and after:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly
    return script(argv)


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory):
    """A run that was left alone."""
    from tests.running import command

    folder = tmp_path_factory.mktemp("alone")
    flags = command(folder / "run", inputs / "encoder", inputs / "train.csv", inputs / "val.csv", *FLAGS)
    run = Running(script, flags, log=folder / "log")
    assert run.wait() == 0, run.output
    return folder / "run"


@pytest.mark.parametrize(
    ("name", "nth", "after"),
    [
        ("4.bin", 1, False),
        ("4.bin", 1, True),
        ("last.bin", 2, False),
        ("last.bin", 2, True),
        ("logs.csv", 1, False),
        ("logs.csv", 2, True),
        ("best.bin", 1, False),
        ("best.bin", 1, True),
        ("args.yaml", 1, False),
    ],
)
def test_a_run_killed_between_writing_and_renaming_ends_as_one_left_alone(name, nth, after, argv, alone, tmp_path):
    from tests.training.test_resume import assert_same_run

    folder = tmp_path / "run"
    killed = Running(killed_at, argv(folder, *FLAGS), name, nth, after, log=tmp_path / "killed")
    assert killed.wait() == -signal.SIGKILL, killed.output
    last = Running(script, argv(folder, *FLAGS), log=tmp_path / "last")
    assert last.wait() == 0, last.output
    assert_same_run(alone, folder)
    assert not list(folder.glob(".*")), "leftovers of the kill"
    assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", ["logs.csv", "logs_by_group.csv"])
def test_a_run_killed_while_its_log_is_cut_ends_as_one_left_alone(name, after, argv, alone, tmp_path):
    from tests.training.test_resume import assert_same_run

    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    # As if killed after the evaluation of step 8, with the checkpoint of step 6 the newest.
    shutil.copy(folder / "6.bin", folder / "last.bin.new")
    for file in ("8.bin", "last.bin"):
        (folder / file).unlink()
    (folder / "last.bin.new").rename(folder / "last.bin")
    killed = Running(killed_at, argv(folder, *FLAGS), name, 1, after, log=tmp_path / "killed")
    assert killed.wait() == -signal.SIGKILL, killed.output
    last = Running(script, argv(folder, *FLAGS), log=tmp_path / "last")
    assert last.wait() == 0, last.output
    assert_same_run(alone, folder)
