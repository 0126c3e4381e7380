"""The table of bad inputs: what is wrong, for which script, and what the message must hold."""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from histocc.runs.options import NO_SETTINGS
from histocc.runs.ranges import RANGES
from tests.attack.world import World
from tests.running import small_encoder

SCRIPTS = ("train_mixer", "finetune", "train")
# The save folder's flag, in the spellings that scripts take.
FOLDER_FLAG = {"train_mixer": "--save-path", "finetune": "--save-path", "train": "--save-dir"}


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes
    ----------
    name
        What is wrong.
    script
        Which script gets it.
    says
        What the message must hold, the value at fault among it; a regular expression.
    make
        Puts files into the case's folder and gives the command line.
    """

    name: str
    script: str
    says: str
    make: Callable[[World, Path], list[str]]

    def __str__(self) -> str:
        return f"{self.script}: {self.name}"


def with_flags(script: str, *flags: str) -> Callable[[World, Path], list[str]]:
    """A good command line, and flags that are not."""
    return lambda world, folder: [*world.argv(script, folder / "run"), *flags]


# -- numbers -----------------------------------------------------------------------------------------------------------


def flags() -> Iterator[tuple[str, argparse.Action]]:
    """Each flag of each script; one that scripts share belongs to the first of them."""
    seen = set()
    for script in SCRIPTS:
        for action in importlib.import_module(script).build_parser()._actions:
            if action.option_strings and action.dest not in seen:
                seen.add(action.dest)
                yield script, action


def numbers() -> Iterator[Case]:
    """Each number: one too large, for the first flag of a range one too small, and words."""
    seen = set()
    for script, action in flags():
        allowed = RANGES.get(action.dest)
        if allowed is None:
            continue
        flag = action.option_strings[-1]
        whole = isinstance(allowed.high, int) and action.type.__name__ == "whole_number"
        values = [allowed.high * 10 + 1 if whole else allowed.high + 1]
        if allowed not in seen:
            seen.add(allowed)
            values.append(allowed.low - 1)
        for value in values:
            says = rf"--{action.dest.replace('_', '-')} is {value}(\.0)?; it must lie in "
            yield Case(f"{flag} {value}", script, says, with_flags(script, flag, str(value)))
    for flag, value in {
        "--seed": "many",
        "--batch-size": "1_0",
        "--max-len": "３２",
        "--learning-rate": "nan",
        "--warmup-pct": "inf",
        "--max-steps": "9" * 5000,
        "--grad-accum-steps": "1e3",
    }.items():
        says = f"argument {flag}: '{value[:60]}' is not a (whole )?number"
        yield Case(f"{flag} {value[:9]}", "train", says, with_flags("train", flag, value))


# -- texts -------------------------------------------------------------------------------------------------------------


def texts() -> Iterator[Case]:
    """Flags without a value, choices that there are not, names of files that cannot be."""
    for script, action in flags():
        flag = action.option_strings[-1]
        if action.choices:
            yield Case(f"{flag} none", script, "invalid choice: 'none'", with_flags(script, flag, "none"))
        elif action.type is None and action.nargs in (None, "+") and action.dest != "language":
            says = f"{flag} is given an empty text"
            yield Case(f"{flag} ''", script, says, with_flags(script, flag, ""))
    for script in SCRIPTS:
        yield Case("an unknown flag", script, "unrecognized arguments: --bogus", with_flags(script, "--bogus"))
    for name in ("..", "a/b", "last", "17", "x" * 256):
        says = f"--model-name is '{name[:20]}'"
        yield Case(f"--model-name {name[:9]}", "train", says, with_flags("train", "--model-name", name))


def folders() -> Iterator[Case]:
    """Save folders that cannot be."""

    def a_file(path: Path) -> None:
        path.write_text("x")

    def a_loop(path: Path) -> None:
        path.symlink_to(path)

    def a_link_to_nowhere(path: Path) -> None:
        path.symlink_to("gone")

    def a_locked_folder(path: Path) -> None:
        (path / ".lock").mkdir(parents=True)

    ways = {
        "a file": (a_file, "run: this is a file; give a folder"),
        "a link to itself": (a_loop, "run is a link to .*run"),
        "a link to nowhere": (a_link_to_nowhere, "run is a link to gone, which is not there"),
        "with a folder for its lock": (a_locked_folder, r"run: \.lock cannot be opened"),
    }
    for script in SCRIPTS:
        for name, (put, says) in ways.items():

            def make(world: World, folder: Path, script: str = script, put: Callable = put) -> list[str]:
                put(folder / "run")
                return world.argv(script, folder / "run")

            yield Case(f"save folder: {name}", script, f"--save-dir .*{says}", make)
        long = "x" * 300
        yield Case(
            "save folder: 300 letters", script, "File name too long", with_flags(script, FOLDER_FLAG[script], long)
        )


# -- input files -------------------------------------------------------------------------------------------------------


def a_pipe(path: Path) -> None:
    """A named pipe; who opens it waits for ever."""
    os.mkfifo(path)


def a_loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def nothing(path: Path) -> None:
    """No file."""


def a_folder(path: Path) -> None:
    """A folder."""
    path.mkdir()


def noise(path: Path) -> None:
    """Bytes that mean nothing."""
    path.write_bytes(bytes(range(256)) * 4)


def empty(path: Path) -> None:
    """An empty file."""
    path.touch()


def half_a_gzip(path: Path) -> None:
    """A compressed table that was cut off."""
    path.write_bytes(gzip.compress(b"word,freq\n" + os.urandom(4000))[:900])


class Trap:
    """Unpickled, it would make a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trapped",)


def a_pickle(path: Path) -> None:
    """A pickle that would run code."""
    path.write_bytes(pickle.dumps({"model": Trap()}, protocol=2))


def content(text: str | bytes) -> Callable[[Path], object]:
    """A file of this content."""
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def inputs() -> Iterator[Case]:
    """Each flag that names an input file, and each thing that may stand in its place."""
    tables = {
        "train_mixer": ["--train-data", "--val-data"],
        "finetune": ["--dataset"],
        "train": ["--train-data"],
    }
    anywhere = {
        "a pipe": (a_pipe, "bad.csv is a pipe"),
        "a loop of links": (a_loop, "bad.csv is a link that leads back to itself"),
        "missing": (nothing, "bad.csv( does not exist)?"),
    }
    long = "x" * 1_000_000
    odd = {
        "a name of megabytes": (content(f"{long}\n1\n"), "bad.csv has no column"),
        "a row with semicolons of megabytes": (content(f"a;{long}\n1\n"), "are separated by semicolons"),
        "a code of megabytes": (
            content(f"occ1,lang,code1,code2,code3,code4,code5,code\nfarmer,en,{long},,,,,{long}\n"),
            r"'x+\.\.\.x+'",
        ),
        "noise": (noise, "bad.csv"),
        "empty": (empty, "bad.csv is empty"),
        "a folder": (a_folder, "bad.csv( is a folder| has no CSV files)"),
        "no rows": (content("occ1,lang,code1,code2,code3,code4,code5,code\n"), "bad.csv has no rows|no rows"),
        "another encoding": (content("occ1,lang,code\nsm\xf8r,da,61110\n".encode("latin-1")), "bad.csv"),
    }
    for script, named in tables.items():
        for flag in named:
            for name, (put, says) in (anywhere | odd).items():
                if script == "finetune" and name == "a code of megabytes":
                    continue  # It lists the rows at fault in a file.
                yield _input(f"{flag}: {name}", script, flag, "bad.csv", put, says)
    for flag, extra in (
        ("--key", ["--formatter", "gpf", "--target-cols", "code"]),
        ("--fn-word-freq", []),
    ):
        for name, (put, says) in (anywhere | {"a folder": (a_folder, "bad.csv is a folder")}).items():
            yield _input(f"{flag}: {name}", "train_mixer", flag, "bad.csv", put, says, *extra)
    for name, (put, says) in (anywhere | {"a folder": (a_folder, "bad.csv is a folder")}).items():
        yield _input(f"--all-codes-file: {name}", "finetune", "--all-codes-file", "bad.csv", put, says)
        described = ["--include-descriptions", "--descriptions-code-col", "code", "--descriptions-text-col", "text"]
        yield _input(
            f"--descriptions-file: {name}", "finetune", "--descriptions-file", "bad.csv", put, says, *described
        )
    words = {
        "a weight that is no number": (content("word,freq\nsmith,x\n"), "1 frequencies that are no number"),
        "weights of no sum": (
            content("word,freq\nsmith,1e308\nbaker,1e308\nclerk,1e308\n"),
            "1e.308 for one: give smaller ones",
        ),
        "noise": (noise, "bad.csv"),
    }
    for name, (put, says) in words.items():
        yield _input(f"--fn-word-freq: {name}", "train_mixer", "--fn-word-freq", "bad.csv", put, says)
    yield _input("--fn-word-freq: half", "train_mixer", "--fn-word-freq", "bad.csv.gz", half_a_gzip, r"bad\.csv\.gz")
    keys = {
        "no columns": ("a,b\n1,2\n", "needs the columns system_code, code"),
        "a class of 5,000 digits": (
            f"system_code,code\na,{'9' * 5000}\n",
            r"the class index '9+\.\.\.9+' is not a whole",
        ),
        "a class in other digits": ("system_code,code\na,１\n", "the class index '１' is not a whole number"),
        "a class left out": ("system_code,code\na,0\nb,2\n", "the class 1 is missing"),
        "a class twice": ("system_code,code\na,0\nb,0\n", "the class 0 belongs to both 'a' and 'b'"),
        "a code twice": ("system_code,code\na,0\na,1\n", "the code 'a' occurs twice"),
    }
    for name, (text, says) in keys.items():
        yield Case(f"--key: {name}", "train_mixer", says, _gpf_key(text))
    yield Case(
        "--description-template '{occ[a]}'",
        "finetune",
        r"The template '\{occ\[a\]\}' cannot be filled in",
        lambda world, folder: [
            *world.argv("finetune", folder / "run"),
            *("--include-descriptions", "--descriptions-file", str(world.folder / "descriptions.csv")),
            *("--descriptions-code-col", "code", "--descriptions-text-col", "text"),
            *("--description-template", "{occ[a]}"),
        ],
    )


def _input(name: str, script: str, flag: str, file: str, put: Callable[[Path], object], says: str, *more: str) -> Case:
    def make(world: World, folder: Path) -> list[str]:
        put(folder / file)
        return [*world.argv(script, folder / "run"), *more, flag, str(folder / file)]

    return Case(name, script, says, make)


def _gpf_key(text: str) -> Callable[[World, Path], list[str]]:
    def make(world: World, folder: Path) -> list[str]:
        (folder / "bad.csv").write_text(text, encoding="utf-8")
        return [*world.gpf(folder / "run"), "--key", str(folder / "bad.csv")]

    return make


# -- settings from a file ----------------------------------------------------------------------------------------------


def settings() -> Iterator[Case]:
    """What `--config` may name, and a value that is none for each setting."""
    for script, action in flags():
        if action.dest not in NO_SETTINGS:
            says = rf"bad.yaml, line 1: the entry {action.dest} holds \{{'a': \[1\]\}}; .* is expected"
            yield Case(f"--config: {action.dest}", script, says, _settings(script, f'{action.dest}: {{"a": [1]}}\n'))
            if action.type is not None:
                says = rf"bad.yaml, line 1: the entry {action.dest} (is|holds) .*(must lie in|is expected)"
                text = f"{action.dest}: {10**60}\n"
                yield Case(f"--config: {action.dest} too large", script, says, _settings(script, text))
    lines = {
        "an unknown name": ("bogus: 1\n", "train.py has no setting 'bogus'"),
        "another flag's matter": ('config: "x"\n', "train.py has no setting 'config'"),
        "a name of megabytes": ("x" * 10**6 + ": 1\n", r"has no setting 'x+\.\.\.x+'"),
        "a value of megabytes": ("seed: " + "9" * 10**6 + "\n", r"seed, '9+\.\.\.9+', is no JSON"),
        "nested without end": ("seed: " + "[" * 10**6 + "\n", r"seed, '\[+\.\.\.\[+', is no JSON"),
        "no YAML of this form": ("seed:\n  - 1\n", "line 1: 'seed:' is no line of the form name: value"),
        "a setting twice": ("seed: 1\nseed: 2\n", "line 2: the entry seed is given twice"),
        "two spellings of one": ("epochs: 1\nnum-epochs: 2\n", "line 2: the entry num-epochs is given twice"),
        "not a number": ("dropout: NaN\n", "the value of dropout, 'NaN', is no JSON"),
    }
    for name, (text, says) in lines.items():
        yield Case(f"--config: {name}", "train", says, _settings("train", text))
    files = {
        "a pipe": (a_pipe, "--config .*bad.yaml is a pipe"),
        "a loop of links": (a_loop, "--config .*bad.yaml is a link that leads back to itself"),
        "missing": (nothing, "--config .*bad.yaml does not exist"),
        "a folder": (a_folder, "--config .*bad.yaml is a folder"),
        "noise": (noise, "--config .*bad.yaml cannot be read"),
    }
    for name, (put, says) in files.items():
        yield _input(f"--config: {name}", "train", "--config", "bad.yaml", put, says)
    yield Case(
        "--print-config with a bad number",
        "train_mixer",
        "--seed is -1",
        with_flags("train_mixer", "--print-config", "--seed", "-1"),
    )


def _settings(script: str, text: str) -> Callable[[World, Path], list[str]]:
    def make(world: World, folder: Path) -> list[str]:
        (folder / "bad.yaml").write_text(text)
        return [*world.argv(script, folder / "run"), "--config", str(folder / "bad.yaml")]

    return make


# -- weights and encoders ----------------------------------------------------------------------------------------------


def weights() -> Iterator[Case]:
    """Files of weights to start from."""
    own = {"train_mixer": "--initial-checkpoint", "train": "--checkpoint-path"}  # two spellings of one
    files = {
        "missing": (nothing, "w.bin does not exist"),
        "a pipe": (a_pipe, "w.bin is a pipe"),
        "a loop of links": (a_loop, "w.bin is a link that leads back to itself"),
        "empty": (empty, "w.bin: the file is empty"),
        "noise": (noise, "w.bin: the file "),
        "a pickle": (a_pickle, r"w\.bin: the file holds more than tensors and plain values \(posix.mkdir\)"),
        "a folder without weights": (a_folder, "the folder .*w.bin holds no weights"),
        "a list": (lambda path: torch.save([torch.ones(2)], path), "w.bin holds no weights"),
        "other weights": (
            lambda path: torch.save({"a": torch.ones(2)}, path),
            "w.bin is no checkpoint of these models",
        ),
    }
    for script, flag in own.items():
        for name, (put, says) in files.items():
            yield _input(f"{flag}: {name}", script, flag, "w.bin", put, says)
    encoder = "encoder.pooler.dense.weight"
    states: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
        "a name that is no text": (lambda s: s["model"].update({5: torch.ones(1)}), "holds 5; a text as name"),
        "a tensor without data": (
            lambda s: s["model"].update({encoder: torch.empty(16, 16, device="meta")}),
            r"a tensor of float32 \[16, 16\] on meta; a dense tensor is expected",
        ),
        "a sparse tensor": (
            lambda s: s["model"].update({encoder: torch.eye(16).to_sparse()}),
            r"a tensor of sparse float32 \[16, 16\]; a dense tensor is expected",
        ),
        "one number for all": (
            lambda s: s["model"].update({encoder: torch.ones(1).expand(16, 16)}),
            "each number in a place of its own, is expected",
        ),
        "whole numbers": (
            lambda s: s["model"].update({encoder: torch.ones(16, 16, dtype=torch.int64)}),
            r"a tensor of int64 \[16, 16\]; a tensor of floating-point numbers is expected",
        ),
        "a number that is none": (
            lambda s: s["model"][encoder][0, 0].fill_(float("nan")),
            "pooler.dense.weight holds nan; a dense tensor",
        ),
        "a head of another width": (
            lambda s: s["model"].update({"linear_decoder.weight": torch.ones(5, 3)}),
            r"weight of the flat head holds a tensor of float32 \[5, 3\]; a dense tensor \[5, 16\] is expected",
        ),
        "a key that is a list": (lambda s: s.update(key=["a"]), r"key holds \['a'\]; None or a mapping"),
        "a key with a negative class": (
            lambda s: s.update(key={"61110": -1}),
            r"key\['61110'\] holds -1; a whole number from 0 to 4 is expected",
        ),
        "a key beyond the head": (
            lambda s: s.update(key={"61110": 5}),
            r"key\['61110'\] holds 5; a whole number from 0 to 4 is expected",
        ),
        "a key with a class twice": (
            lambda s: s.update(key={"61110": 0, "83110": 0}),
            r"key\['83110'\] holds 0; a class that '61110' does not have is expected",
        ),
    }
    for name, (change, says) in states.items():

        def make(world: World, folder: Path, change: Callable = change) -> list[str]:
            source = world.changed_run("finetune", folder / "from", change) / "last.bin"
            return [*world.argv("finetune", folder / "run"), "--initial-checkpoint", str(source)]

        yield Case(f"--initial-checkpoint: {name}", "finetune", says, make)


def encoders() -> Iterator[Case]:
    """Folders that are no encoder, and names that are none."""
    settings: dict[str, tuple[Any, str]] = {
        "a list": ([], "a CANINE model is needed|holds no encoder that can be read"),
        "a number": (7, "a CANINE model is needed|holds no encoder that can be read"),
        "a size that is a text": ({"hidden_size": "x"}, "hidden_size holds 'x'; a whole number from 1 to 16,384"),
        "a size without end": ({"hidden_size": 10**12}, "hidden_size holds 1000000000000; a whole number"),
        "no heads": ({"num_attention_heads": 0}, "num_attention_heads holds 0; a whole number from 1"),
        "heads that do not divide": (
            {"num_attention_heads": 3},
            "num_attention_heads holds 3; a divisor of hidden_size",
        ),
        "hashes that do not divide": (
            {"num_hash_functions": 5},
            "num_hash_functions holds 5; a divisor of hidden_size",
        ),
        "layers without end": ({"num_hidden_layers": 10**9}, "num_hidden_layers holds 1000000000; a whole number"),
        "an unknown activation": ({"hidden_act": "wish"}, "hidden_act holds 'wish'; one of "),
        "another rate": ({"downsampling_rate": 0}, "downsampling_rate holds 0; one of 4"),
        "a dropout of 5": ({"hidden_dropout_prob": 5}, "hidden_dropout_prob holds 5; a finite number from 0 to 1"),
        "other sizes than the weights": ({"hidden_size": 64}, "holds no encoder that can be read"),
        "another model": ({"model_type": "bert"}, "is a 'bert' model; a CANINE model is needed"),
    }
    for name, (entries, says) in settings.items():

        def damaged(folder: Path, entries: Any = entries) -> None:
            path = folder / "config.json"
            whole = json.loads(path.read_text())
            path.write_text(json.dumps({**whole, **entries} if isinstance(entries, dict) else entries))

        yield _encoder(f"config.json: {name}", "train_mixer", damaged, says)

    def cut(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])

    def a_header_of_noise(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:8] + os.urandom(2000))

    def pickled(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        a_pickle(folder / "pytorch_model.bin")

    def piped(folder: Path) -> None:
        (folder / "config.json").unlink()
        a_pipe(folder / "config.json")

    def deep(folder: Path) -> None:
        (folder / "config.json").write_text("[" * 100_000)

    def infinite(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        state["pooler.dense.bias"][3] = float("inf")
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    def fewer_positions_than_it_says(folder: Path) -> None:
        small_encoder(folder, positions=512)  # with a table for 64 of them

    unread = "holds no encoder that can be read"
    yield _encoder("weights cut off", "train_mixer", cut, unread)
    yield _encoder("weights of noise", "finetune", a_header_of_noise, unread)
    yield _encoder("pickled weights", "train", pickled, unread)
    yield _encoder("a pipe", "train_mixer", piped, f"{unread}: config.json is a pipe")
    yield _encoder("config.json nested without end", "finetune", deep, unread)
    says = "--max-len is 128, but the encoder .* has 64 positions: set --max-len 64 or less"
    for script in SCRIPTS:
        yield _encoder("fewer positions", script, fewer_positions_than_it_says, says, "--max-len", "128")
    yield _encoder("an infinite weight", "train", infinite, "pooler.dense.bias holds inf; a dense tensor")
    for name in ("no/such", "a/b/c", "not a name!", "x" * 300):
        says = f"the encoder '{name}' is " + ("neither a local folder nor in" if name == "no/such" else "not there")
        yield Case(f"--encoder {name[:9]}", "train_mixer", says, with_flags("train_mixer", "--encoder", name))
    for script in SCRIPTS:
        says = "--max-len is 65, but the encoder .* has 64 positions"
        yield Case("--max-len 65", script, says, with_flags(script, "--max-len", "65"))


def _encoder(name: str, script: str, damage: Callable[[Path], object], says: str, *flags: str) -> Case:
    def make(world: World, folder: Path) -> list[str]:
        shutil.copytree(world.folder / "encoder", folder / "encoder")
        damage(folder / "encoder")
        return [*world.argv(script, folder / "run"), "--encoder", str(folder / "encoder"), *flags]

    return Case(f"--encoder: {name}", script, says, make)


# -- stored files ------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


def put(*path: Any) -> Change:
    """Sets an entry: ``put("position", "epoch", -1)``."""
    *names, last, value = path

    def change(state: dict[str, Any]) -> None:
        for name in names:
            state = state[name]
        state[last] = value

    return change


def drop(*path: Any) -> Change:
    """Takes an entry out."""
    *names, last = path

    def change(state: dict[str, Any]) -> None:
        for name in names:
            state = state[name]
        del state[last]

    return change


def _moment(name: str, make: Callable[[torch.Tensor], object], of: int = 0) -> Change:
    """Replaces a moment of one parameter by something made of it."""

    def change(state: dict[str, Any]) -> None:
        own = state["optimizer"]["state"][of]
        own[name] = make(own[name])

    return change


def _shared_moment(state: dict[str, Any]) -> None:
    own = state["optimizer"]["state"][0]
    own["exp_avg_sq"] = own["exp_avg"].abs_()
    own["exp_avg"] = own["exp_avg_sq"]


_WEIGHT = "linear_decoder.bias"
_GROUP = ("optimizer", "param_groups", 0)
_HUGE = 10**30
_CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "step -1": (put("step", -1), "step holds -1; a whole number from 0"),
    "step 10**30": (put("step", _HUGE), f"step holds {_HUGE}; a whole number"),
    "step of 60 digits": (put("step", 10**60), "step holds a number of about 61 digits"),
    "step of 5,000 digits": (put("step", 10**5000), "the file is damaged"),
    "step a text": (put("step", "2"), "step holds '2'"),
    "step NaN": (put("step", float("nan")), "step holds nan"),
    "step True": (put("step", True), "step holds True"),
    "step a tensor": (put("step", torch.tensor(2)), r"step holds a tensor of int64 \[\]"),
    "no step": (drop("step"), "no 'model' and 'step' in it"),
    "epoch -1": (put("position", "epoch", -1), "position.epoch holds -1"),
    "epoch 1.5": (put("position", "epoch", 1.5), "position.epoch holds 1.5"),
    "rows_done -5": (put("position", "rows_done", -5), "position.rows_done holds -5"),
    "rows_done 10**12": (put("position", "rows_done", 10**12), "position.rows_done holds 1000000000000"),
    "rows_done 41": (put("position", "rows_done", 41), "position.rows_done holds 41; a whole number from 0 to 39"),
    "rows_done 40": (put("position", "rows_done", 40), "position.rows_done holds 40; a whole number from 0 to 39"),
    "seed a text": (put("position", "seed", "42"), "position.seed holds '42'"),
    "seed 2**63": (put("position", "seed", 2**63), f"position.seed holds {2**63}"),
    "world_size 0": (put("position", "world_size", 0), "position.world_size holds 0"),
    "no world_size": (drop("position", "world_size"), "the entry position.world_size is missing"),
    "loss_sum a list": (put("position", "loss_sum", [1]), r"position.loss_sum holds \[1\]"),
    "rows 3.5": (put("position", "rows", 3.5), "position.rows holds 3.5"),
    "counts a list": (put("position", "counts", [1]), r"position.counts holds \[1\]"),
    "batches None": (put("position", "batches", None), "position.batches holds None"),
    "seconds NaN": (put("position", "seconds", float("nan")), "position.seconds holds nan"),
    "position a list": (put("position", [1, 2]), r"position holds \[1, 2\]; a mapping"),
    "position with a number as name": (put("position", 3, 4), r"position \(one of its names\) holds 3"),
    "best_val_loss NaN": (put("best_val_loss", float("nan")), "best_val_loss holds nan"),
    "no best_val_loss": (drop("best_val_loss"), "the entry best_val_loss is missing"),
    "precision None": (put("precision", None), "precision holds None; a mapping"),
    "skipped_steps -1": (put("precision", "skipped_steps", -1), "precision.skipped_steps holds -1"),
    "dtype 5": (put("precision", "dtype", 5), "precision.dtype holds 5; a text"),
    "scaler empty": (put("precision", "scaler", {}), "the entry precision.scaler.scale is missing"),
    "settings a list": (put("settings", [1]), r"settings holds \[1\]; None or a mapping"),
    "a setting that is a tensor": (
        put("settings", "batch_size", torch.ones(2)),
        r"settings\['batch_size'\] holds a tensor of float32 \[2\]",
    ),
    "training_rows a text": (put("settings", "training_rows", "40"), "settings.training_rows holds '40'"),
    "key a list": (put("key", ["a"]), r"key holds \['a'\]"),
    "key beyond the head": (put("key", {"a": 1919}), r"key\['a'\] holds 1919; a whole number from 0 to 1,918"),
    "key with a class twice": (put("key", {"a": 1, "b": 1}), r"key\['b'\] holds 1; a class that 'a' does not have"),
    "model a list": (put("model", [torch.ones(2)]), r"model holds \[a tensor of float32 \[2\]\]; a mapping"),
    "model empty": (put("model", {}), "holds none of this package's models"),
    "a weight as text": (put("model", _WEIGHT, "x"), rf"model\['{_WEIGHT}'\] holds 'x'; a dense tensor"),
    "a weight without data": (put("model", _WEIGHT, torch.empty(1919, device="meta")), r"\[1919\] on meta; a dense"),
    "a sparse weight": (put("model", _WEIGHT, torch.ones(1919).to_sparse()), r"sparse float32 \[1919\]; a dense"),
    "a weight of another type": (
        put("model", _WEIGHT, torch.ones(1919, dtype=torch.float64)),
        r"a tensor of float64 \[1919\]; a dense tensor of float32 \[1919\]",
    ),
    "one number for a weight": (put("model", _WEIGHT, torch.ones(1).expand(1919)), "each number in a place of its own"),
    "a weight that is infinite": (
        lambda s: s["model"][_WEIGHT][7].fill_(float("inf")),
        f"model.{_WEIGHT} holds inf; a dense tensor .* of numbers that are finite",
    ),
    "a weight of another shape": (put("model", _WEIGHT, torch.ones(7)), rf"{_WEIGHT} is \[7\] there and \[1919\] here"),
    "a weight too few": (drop("model", _WEIGHT), f"it lacks {_WEIGHT}"),
    "a weight too many": (put("model", "more", torch.ones(1)), "it has more, which is not here"),
    "no optimizer": (drop("optimizer"), "the entry optimizer is missing"),
    "optimizer a list": (put("optimizer", [1]), r"optimizer holds \[1\]; a mapping"),
    "state a list": (put("optimizer", "state", [1]), r"optimizer.state holds \[1\]; a mapping"),
    "state of a text": (put("optimizer", "state", "x", {}), r"optimizer.state \(one of its names\) holds 'x'"),
    "state of no parameter": (put("optimizer", "state", 999, {}), r"optimizer.state\[999\] belongs to no parameter"),
    "state without a parameter": (drop("optimizer", "state", 1), r"optimizer.state\[1\] is missing, the moments of"),
    "a state that is a list": (put("optimizer", "state", 1, [2]), r"optimizer.state\[1\] holds \[2\]"),
    "groups None": (put("optimizer", "param_groups", None), "optimizer.param_groups holds None; a list"),
    "no groups": (put("optimizer", "param_groups", []), r"optimizer.param_groups holds \[\]; at least one group"),
    "a moment of another shape": (
        _moment("exp_avg", lambda t: t[:1].clone()),
        r"optimizer.state\[0\].exp_avg holds a tensor of float32 \[1, .*; a dense tensor of float32 \[",
    ),
    "a moment in a row": (_moment("exp_avg", torch.flatten), r"optimizer.state\[0\].exp_avg holds a tensor of float32"),
    "one number for a moment": (
        _moment("exp_avg", lambda t: torch.ones(1).expand(t.shape)),
        r"optimizer.state\[0\].exp_avg .* each number in a place of its own",
    ),
    "a moment turned round": (
        _moment("exp_avg", lambda t: t.t().contiguous().t()),
        r"optimizer.state\[0\].exp_avg .* each number in a place of its own",
    ),
    "a moment of another type": (
        _moment("exp_avg", torch.Tensor.double),
        r"optimizer.state\[0\].exp_avg holds a tensor of float64",
    ),
    "a moment without data": (_moment("exp_avg", lambda t: t.to("meta")), r"\[0\].exp_avg holds .* on meta"),
    "a sparse moment": (_moment("exp_avg", torch.Tensor.to_sparse), r"\[0\].exp_avg holds a tensor of sparse"),
    "a moment that is a number": (_moment("exp_avg", lambda t: 1.0), r"\[0\].exp_avg holds 1.0; a dense tensor"),
    "a moment that is NaN": (_moment("exp_avg", lambda t: t * float("nan")), r"\[0\].exp_avg holds nan"),
    "a negative square": (_moment("exp_avg_sq", lambda t: t - 1), r"\[0\].exp_avg_sq holds -.* of numbers from 0 on"),
    "a moment too few": (drop("optimizer", "state", 0, "exp_avg_sq"), r"\[0\].exp_avg_sq is missing"),
    "moments in one place": (_shared_moment, r"\[0\].exp_avg_sq shares its memory with optimizer.state\[0\].exp_avg"),
    "steps of a moment -1": (_moment("step", lambda t: t - 9), r"\[0\].step holds -"),
    "steps of a moment in a row": (
        _moment("step", lambda t: torch.ones(3)),
        r"\[0\].step holds a tensor of float32 \[3\]",
    ),
    "no params": (drop(*_GROUP, "params"), r"param_groups\[0\].params is missing"),
    "params twice": (lambda s: put(*_GROUP, "params", [0] * len(s["optimizer"]["state"]))(s), "each parameter once"),
    "params too few": (put(*_GROUP, "params", [0, 1]), "its optimizer has 2 parameters there and .* parameters here"),
    "a rate of -1": (put(*_GROUP, "lr", -1.0), r"param_groups\[0\].lr holds -1.0; a finite number from 0 to 1000"),
    "a rate that is NaN": (put(*_GROUP, "initial_lr", float("nan")), r"param_groups\[0\].initial_lr holds nan"),
    "betas of 5": (put(*_GROUP, "betas", (5, 5)), r"param_groups\[0\].betas\[0\] holds 5; a finite number from 0 to 1"),
    "betas a text": (put(*_GROUP, "betas", "x"), r"param_groups\[0\].betas holds 'x'; a list of length 2"),
    "amsgrad": (put(*_GROUP, "amsgrad", True), r"param_groups\[0\].amsgrad holds True; one of False"),
    "up the hill": (put(*_GROUP, "maximize", True), r"param_groups\[0\].maximize holds True; one of False"),
    "no scheduler": (drop("scheduler"), "the entry scheduler is missing"),
    "scheduler None": (put("scheduler", None), "scheduler holds None; the state of the learning rate's schedule"),
    "scheduler a list": (put("scheduler", [1]), r"scheduler holds \[1\]; None or a mapping"),
    "last_epoch 10**11": (put("scheduler", "last_epoch", 10**11), "last_epoch holds 100000000000; a whole number"),
    "last_epoch a text": (put("scheduler", "last_epoch", "2"), "scheduler.last_epoch holds '2'"),
    "no last_epoch": (drop("scheduler", "last_epoch"), "the entry scheduler.last_epoch is missing"),
    "base_lrs too many": (put("scheduler", "base_lrs", [1.0, 1.0]), r"base_lrs holds \[1.0, 1.0\]; a list of length 1"),
    "another base_lrs": (put("scheduler", "base_lrs", [5.0]), r"base_lrs holds \[5.0\]; \[2e-05\], as in optimizer"),
    "_last_lr a text": (put("scheduler", "_last_lr", ["x"]), r"scheduler._last_lr\[0\] holds 'x'"),
}
_FLAT_CHECKPOINTS: dict[str, tuple[Change, str]] = {
    "augmented a text": (put("augmented", "yes"), "augmented holds 'yes'; True or False"),
    "counts empty": (put("position", "counts", {}), r"position.counts holds \{\}; a count of each of train_acc"),
    "counts negative": (put("position", "counts", {"train_acc": -1.0}), r"position.counts\['train_acc'\] holds -1.0"),
    "step 10**30": (put("step", _HUGE), f"step holds {_HUGE}"),
    "rows_done 58": (put("position", "rows_done", 58), "position.rows_done holds 58; a whole number from 0 to 5"),
    "a moment in a row": (_moment("exp_avg", torch.flatten), r"optimizer.state\[0\].exp_avg holds a tensor of float32"),
}
_FINETUNED: dict[str, tuple[Change, str]] = {
    "key a text": (put("key", "x"), "key holds 'x'; None or a mapping"),
    "key beyond the head": (put("key", {"61110": 5}), r"key\['61110'\] holds 5; a whole number from 0 to 4"),
    "world_size missing": (drop("position", "world_size"), "position.world_size is missing"),
    "a moment of another type": (_moment("exp_avg", torch.Tensor.half), r"\[0\].exp_avg holds a tensor of float16"),
}


def checkpoints() -> Iterator[Case]:
    """Every entry of a run's checkpoint."""
    for script, changes in (("train_mixer", _CHECKPOINTS), ("train", _FLAT_CHECKPOINTS), ("finetune", _FINETUNED)):
        for name, (change, says) in changes.items():

            def make(world: World, folder: Path, script: str = script, change: Change = change) -> list[str]:
                run = world.changed_run(script, folder / "run", change)
                return [*world.argv(script, run), "--max-steps", "3"]

            yield Case(f"last.bin: {name}", script, says, make)


def stored() -> Iterator[Case]:
    """Everything else that a resumed run reads."""
    logs: dict[str, tuple[Callable[[Path], object], str]] = {
        "a folder": (a_folder, "logs.csv is no table of figures .* it is a folder"),
        "a pipe": (a_pipe, "logs.csv is no table of figures .* it is a pipe"),
        "noise": (noise, "logs.csv is no table of figures"),
        "a step without end": (content("step,val_loss\ninf,1\n"), "it has 'inf' in row 2, column 'step'"),
        "a step of megabytes": (
            content(f"step,val_loss\n{'9' * 10**6},1\n"),
            r"it has '9+\.\.\.9+' in row 2, column 'step'",
        ),
        "a negative step": (content("step,val_loss\n-1,1\n"), "it has '-1' in row 2, column 'step'"),
        "no steps": (content("a,b\n1,2\n"), "it has nothing in row 2, column 'step'"),
        "a row too long": (content("step,val_loss\n1,2,3\n"), "it has more values in row 2 than in its header"),
    }
    for name, (put_file, says) in logs.items():
        yield _stored(f"logs.csv: {name}", "train_mixer", "logs.csv", put_file, says)
    yield _stored("logs_by_group.csv", "train_mixer", "logs_by_group.csv", content("step\nx\n"), "it has 'x' in row 2")
    flat = "epoch,step,train_loss,train_acc,val_loss,val_acc\n1,1,x,0,0,0\n"
    yield _stored(
        "logs.csv: a loss that is none", "train", "logs.csv", content(flat), "it has 'x' in row 2, column 'train_"
    )
    files: dict[str, tuple[Callable[[Path], object], str]] = {
        "a folder": (a_folder, "last.bin is a folder"),
        "a pipe": (a_pipe, "last.bin is a pipe"),
        "noise": (noise, "No checkpoint in the save folder is whole(.|\n)*last.bin"),
        "a pickle": (a_pickle, "last.bin: the file holds more than tensors and plain values"),
        "a list": (lambda path: torch.save([1], path), "last.bin: this is no checkpoint of a training run"),
    }
    for name, (put_file, says) in files.items():
        yield _stored(f"last.bin: {name}", "train", "last.bin", put_file, says)
    for name, (text, says) in {
        "a class of 5,000 digits": (
            f"system_code,code\na,{'9' * 5000}\n",
            r"the class index '9+\.\.\.9+' is not a whole",
        ),
        "a code less": ("system_code,code\n61110,0\n", "'83110'"),
        "noise": ("\x00\x01", "key.csv"),
    }.items():
        yield _stored(f"key.csv: {name}", "finetune", "key.csv", content(text), says)

    facts: dict[str, tuple[Callable[[Path], object], str]] = {
        "a list": (content("[1]"), r"preparation.json: the entry all of it holds \[1\]; a mapping is expected"),
        "nested without end": (content("[" * 100_000), "preparation.json: cannot be read"),
        "a pipe": (a_pipe, "preparation.json: is a pipe"),
        "noise": (noise, "preparation.json: cannot be read"),
        "columns that are a number": (content('{"target_cols": 5}'), "the entry target_cols holds 5; a list"),
        "a share of 7": (content('{"share_val": 7}'), "the entry share_val holds 7; a finite number from 0 to 1"),
        "a state of texts": (content('{"dataset_state": ["x", 1]}'), r"the entry dataset_state\[0\] holds 'x'"),
        "a block size without end": (content('{"block_size": 1e99}'), "the entry block_size holds 1e.99"),
    }
    for name, (put_file, says) in facts.items():
        yield _stored(f"preparation.json: {name}", "finetune", "preparation.json", put_file, says)


def _stored(name: str, script: str, file: str, put_file: Callable[[Path], object], says: str) -> Case:
    def make(world: World, folder: Path) -> list[str]:
        run = world.copy_of_run(script, folder / "run")
        (run / file).unlink()
        put_file(run / file)
        return [*world.argv(script, run), "--max-steps", "3"]

    return Case(name, script, says, make)


_KINDS = (numbers, texts, folders, inputs, settings, weights, encoders, checkpoints, stored)
CASES = [case for kind in _KINDS for case in kind()]
