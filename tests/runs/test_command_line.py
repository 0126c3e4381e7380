"""Command lines, environments and folders that are wrong: one message, exit code 2, no traceback."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import socket
from pathlib import Path

import pytest

from histocc.errors import Problems, UsageError
from histocc.files.folders import check_folder
from histocc.files.lock import locked_folder
from histocc.processes import distributed
from histocc.runs import command_line as cli
from histocc.runs import shared
from histocc.runs.ranges import RANGES, check_numbers, real_number, whole_number
from tests.running import Running, free_port, script

ADVICE = "start the script with torchrun, which sets these variables, or unset WORLD_SIZE for a single process"


def test_seeds_are_what_every_generator_takes(capsys):
    parser = importlib.import_module("train").build_parser()
    assert parser.parse_args(["--seed", str(2**63 - 1)]).seed == 2**63 - 1
    for seed in (-5, 99999999999999999999999):
        problems = Problems()
        check_numbers(vars(parser.parse_args(["--seed", str(seed)])), problems)
        assert problems.messages == [f"--seed is {seed}; it must lie in 0..9,223,372,036,854,775,807"]
    for seed in ("many", "1.5", "1_0", "１２", "", "9" * 5000):
        with pytest.raises(SystemExit, match="2"):
            parser.parse_args(["--seed", seed])
        assert f"argument --seed: {seed[:60]!r} is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["nan", "inf", "1_0.5", "٣", "0x1", "1e5e5", "", "9" * 61])
def test_numbers_are_written_in_ascii_digits(text, capsys):
    parser = cli.ScriptParser(prog="script")
    cli.add_schedule_arguments(parser)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--warmup-pct", text])
    assert f"argument --warmup-pct: {text[:60]!r} is not a number" in capsys.readouterr().err


@pytest.mark.parametrize("script_name", ["train", "train_mixer", "finetune"])
def test_every_number_has_a_range_and_the_help_states_it(script_name):
    parser = importlib.import_module(script_name).build_parser()
    numbers = [action for action in parser._actions if action.type is not None]
    assert len(numbers) > 15
    help_text = " ".join(parser.format_help().split())
    for action in numbers:
        assert action.type in (whole_number, real_number), action.dest
        if action.help != argparse.SUPPRESS:
            assert f"[{RANGES[action.dest]}]" in help_text.partition(f" {action.option_strings[0]} ")[2]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 but not which process this is (RANK)"),
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc, which is not a whole number from 0 on"),
        ({"WORLD_SIZE": "2", "RANK": "first"}, "RANK=first, which is not a whole number from 0 on"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2, but with WORLD_SIZE=2 ranks go from 0 to 1"),
        ({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "-1"}, "LOCAL_RANK=-1, which is not a whole number from 0 on"),
        (
            {"WORLD_SIZE": "2", "RANK": "0"},
            "WORLD_SIZE=2 but not where the processes meet (MASTER_ADDR, MASTER_PORT)",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"},
            "WORLD_SIZE=2 but not where the processes meet (MASTER_PORT)",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "http"},
            "MASTER_PORT=http, which is not a whole number from 0 on",
        ),
    ],
)
def test_an_environment_that_describes_no_run_is_one_message(environment, message, argv, tmp_path):
    run = Running(script, argv(tmp_path / "run"), log=tmp_path / "log", env=environment)
    assert run.wait() == 2, run.output
    assert run.output == f"Error: the environment says {message}; {ADVICE}\n"


MEETING = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0, but ports go from 1 to 65535"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT=70000, but ports go from 1 to 65535"),
        ({"MASTER_ADDR": "nowhere.invalid"}, "MASTER_ADDR=nowhere.invalid, but there is no machine of this name"),
        ({"MASTER_ADDR": "a" * 300}, "a, but there is no machine of this name"),
    ],
)
def test_a_meeting_place_that_cannot_be_is_one_message(changed, message, argv, tmp_path):
    run = Running(script, argv(tmp_path / "run"), log=tmp_path / "log", env=MEETING | changed)
    assert run.wait() == 2, run.output
    assert run.output.startswith("Error: the environment says MASTER_")
    assert message in run.output
    assert run.output.count("\n") == 1


def impatient(argv: list[str]) -> int:
    """Target: the script, with less patience for something else that answers."""
    distributed._HANDSHAKE_SECONDS = 0.5
    return script(argv)


@pytest.mark.parametrize("who", ["another program", "nobody"])
@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_do_not_meet_say_what_they_tried(rank, who, argv, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if who == "another program":
            other.listen()
            port = other.getsockname()[1]
        else:
            other.close()
            port = free_port()
        environment = MEETING | {"RANK": str(rank), "MASTER_PORT": str(port)}
        flags = argv(tmp_path / "run", "--start-timeout", 1)
        run = Running(impatient, flags, log=tmp_path / "log", env=environment)
        assert run.wait() == 2, run.output
    tried = f"Error: process {rank} of 2 tried to meet the others at MASTER_ADDR=127.0.0.1, MASTER_PORT={port}, "
    assert run.output.count(tried) == 1
    if (rank, who) == (0, "another program"):
        assert "where another program listens already: choose another MASTER_PORT" in run.output
    else:
        assert "for 1 s (" in run.output
        assert "--start-timeout SECONDS" in run.output
    assert "Traceback" not in run.output


@pytest.mark.parametrize("size", ["2", "abc"])
def test_a_bad_flag_is_said_whatever_the_environment(size, tmp_path):
    run = Running(script, ["--bogus"], log=tmp_path / "log", env={"WORLD_SIZE": size})
    assert run.wait() == 2, run.output
    assert run.output.endswith("train_mixer.py: error: unrecognized arguments: --bogus\n")
    assert "Traceback" not in run.output


def test_a_save_folder_that_is_a_link_to_nowhere_is_one_message(argv, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")
    for folder in (link, link / "run"):
        run = Running(script, argv(folder), log=tmp_path / f"{folder.name}.log")
        assert run.wait() == 2, run.output
        assert run.output == (
            f"Error: --save-dir {folder}: {link} is a link to {tmp_path / 'gone'}, which is not there\n"
        )


def as_nobody(argv: list[str], folder: str) -> int:
    """Target: the script in `folder`, by a user to whom permissions apply."""
    os.chdir(folder)
    if os.geteuid() == 0:
        os.setuid(65534)
    return script(argv)


def test_a_save_folder_below_one_that_may_not_be_searched_is_one_message(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    tmp_path.chmod(0o755)
    run = Running(as_nobody, ["--save-dir", "closed/to/me"], str(tmp_path), log=tmp_path / "log")
    assert run.wait() == 2, run.output
    wanted = "--save-dir closed/to/me: no permission to look into closed; give a folder of your own"
    assert wanted in run.output
    assert "Traceback" not in run.output


def test_a_save_folder_that_cannot_be_named_or_created_is_a_usage_error(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"--save-dir .*x: File name too long; give another folder"):
        check_folder(tmp_path / ("x" * 300), "--save-dir")

    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    message = r"--save-dir .*run: the folder cannot be created: No space left on device"
    with pytest.raises(UsageError, match=message), locked_folder(tmp_path / "run", "--save-dir"):
        pass


def test_arguments_are_written_whole_or_the_file_is_named(argv, tmp_path):
    path = tmp_path / "args.yaml"
    path.write_text("of another user")
    path.chmod(0o444)
    shared.write_arguments(path, {"seed": 1, "language": "dænsk"})
    assert path.read_text(encoding="utf-8") == 'language: "dænsk"\nseed: 1\n'
    assert [file.name for file in tmp_path.iterdir()] == ["args.yaml"]

    taken = tmp_path / "run" / "args.yaml"
    taken.mkdir(parents=True)
    with pytest.raises(UsageError, match=rf"{re.escape(str(taken))} cannot be written: Is a directory"):
        shared.write_arguments(taken, {"seed": 1})
    run = Running(script, argv(taken.parent), log=tmp_path / "log")
    assert run.wait() == 2, run.output
    assert run.output == f"Error: {taken} cannot be written: Is a directory\n"
