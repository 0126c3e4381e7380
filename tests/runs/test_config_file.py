"""`--config`: the settings of a run, given back from its ``args.yaml``."""

from __future__ import annotations

import importlib
import re

import pytest

from histocc.runs import command_line as cli
from histocc.runs.options import FinetuneOptions, FlatOptions, TrainMixerOptions
from histocc.runs.shared import write_arguments

OPTIONS = {"train": FlatOptions, "train_mixer": TrainMixerOptions, "finetune": FinetuneOptions}
LINES = {
    "train": ["--train-data", "a", "b", "--sample-size", "4", "--skip-insert-words", "--learning-rate", "3e-5"],
    "train_mixer": ["--save-dir", "rüns/a", "--train-data", "a b.csv", "--warmup-steps", "7", "--no-tf32", "--use-amp"],
    "finetune": [
        *("--dataset", 't"1.csv', "--target-cols", "c1", "c\u20282\x85"),
        *("--short-codes", "-1", "-2", "--language", "da"),
    ],
}


def options_of(script, argv):
    module = importlib.import_module(script)
    demo = module.demo_defaults if script == "finetune" else lambda given: module.demo_defaults()
    return OPTIONS[script].from_namespace(cli.read_command_line(module.build_parser(), argv, demo))


def config(tmp_path, *lines):
    path = tmp_path / "settings.yaml"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return ["--config", str(path)]


@pytest.mark.parametrize("script", LINES)
@pytest.mark.parametrize("demo", [[], ["--demo"]], ids=["", "demo"])
def test_what_a_run_writes_gives_the_run_back(script, demo, tmp_path):
    options = options_of(script, [*LINES[script], *demo])
    write_arguments(tmp_path / "args.yaml", options.shown())
    again = options_of(script, ["--config", str(tmp_path / "args.yaml")])
    assert again.shown() == options.shown()
    written = (tmp_path / "args.yaml").read_text()
    assert not re.search(r"^(config|print_config|version|help):", written, re.MULTILINE)
    changed = options_of(script, ["--config", str(tmp_path / "args.yaml"), "--batch-size", "9"])
    assert changed.shown() == {**options.shown(), "batch_size": 9}


def test_the_warm_up_in_force_is_written():
    assert options_of("train", []).shown()["warmup_pct"] == 0.05
    shown = options_of("train", ["--warmup-steps", "3"]).shown()
    assert (shown["warmup_pct"], shown["warmup_steps"]) == (None, 3)


def test_a_flag_takes_the_place_of_its_alternative_in_the_file(tmp_path):
    of_share = config(tmp_path, "warmup_pct: 0.1", "warmup_steps: null")
    options = options_of("train", [*of_share, "--warmup-steps", "5"])
    assert (options.warmup_pct, options.warmup_steps) == (None, 5)
    assert options_of("train", of_share).warmup_share == 0.1
    options = options_of("finetune", [*config(tmp_path, 'language: "da"'), "--language-col", "lang"])
    assert (options.language, options.language_col) == ("unk", "lang")
    options = options_of("finetune", [*config(tmp_path, 'language_col: "lang"'), "--language", "unk"])
    assert (options.language, options.language_col) == ("unk", None), "a flag that is given its default is given"
    of_steps = config(tmp_path, "num_epochs: 3", "max_steps: 30")
    assert (options_of("train", of_steps).num_epochs, options_of("train", of_steps).max_steps) == (3, 30)
    options = options_of("train", [*of_steps, "--epochs", "50"])
    assert (options.num_epochs, options.max_steps) == (50, None), "steps of the file would win over the flag"
    options = options_of("train", [*of_steps, "--epochs", "50", "--max-steps", "9"])
    assert (options.num_epochs, options.max_steps) == (50, 9)


def test_a_switch_of_the_file_is_taken_back_by_a_flag(tmp_path):
    of_file = config(tmp_path, "use_amp: true", "tf32: false", "skip_insert_words: true")
    options = options_of("train", of_file)
    assert (options.use_amp, options.tf32, options.skip_insert_words) == (True, False, True)
    options = options_of("train", [*of_file, "--no-use-amp", "--tf32"])
    assert (options.use_amp, options.tf32, options.skip_insert_words) == (False, True, True)
    assert not options_of("train", ["--no-tf"]).tf32, "the abbreviation of a flag that the help shows"


def test_old_spellings_comments_and_blank_lines_are_fine(tmp_path):
    argv = config(tmp_path, "# a comment", "", "epochs: 3", 'checkpoint-path: "a.bin"', "  # another", "alt_prob: 0.2")
    options = options_of("train", argv)
    assert (options.num_epochs, options.initial_checkpoint, options.augmentation_prob) == (3, "a.bin", 0.2)


BAD = [
    ("num_epoch: 3", r"settings.yaml, line 1: train.py has no setting 'num_epoch' \(did you mean 'num_epochs'"),
    ("config: 3", r"train.py has no setting 'config'"),
    ("no_tf32: true", r"train.py has no setting 'no_tf32' \(did you mean 'tf32'"),
    ("no_use_amp: true", r"train.py has no setting 'no_use_amp' \(did you mean 'use_amp'"),
    ("seed 3", r"line 1: 'seed 3' is no line of the form name: value, such as batch_size: 64"),
    ("training:", r"'training:' is no line of the form name: value"),
    ("- seed: 3", r"'- seed: 3' is no line of the form"),
    ("seed: three", r"the value of seed, 'three', is no JSON"),
    ("dropout: NaN", r"the value of dropout, 'NaN', is no JSON"),
    ("seed: " + "[" * 100_000, r"the value of seed, '\[+\.\.\.\[+', is no JSON"),
    ("seed: " + "9" * 5000, r"(the value of seed, '9+\.\.\.9+', is no JSON|the entry seed is )"),
    ('seed: "3"', r"the entry seed holds '3'; a whole number is expected"),
    ("seed: 1.5", r"the entry seed holds 1.5; a whole number is expected"),
    ("seed: true", r"the entry seed holds True; a whole number is expected"),
    ("seed: null", r"the entry seed holds None; a value is expected"),
    ("dropout: 1.5", r"the entry dropout is 1.5; it must lie in 0..1"),
    ("use_amp: 1", r"the entry use_amp holds 1; true or false is expected"),
    ('tf32: "no"', r"the entry tf32 holds 'no'; true or false is expected"),
    ('amp_dtype: "float8"', r"the entry amp_dtype holds 'float8'; one of .auto., .* is expected"),
    ('train_data: "a"', r"the entry train_data holds 'a'; a list of texts is expected: write train_data: \[.a.\]"),
    ("train_data: A.csv, b.csv", r"'A.csv, b.csv', is no JSON: write train_data: \[\"A.csv\", \"b.csv\"\]"),
    ("train_data: [A.csv]", r"'\[A.csv\]', is no JSON: write train_data: \[\"A.csv\"\]"),
    ("model_name: mine", r"'mine', is no JSON: write model_name: \"mine\""),
    ("train_data: []", r"the entry train_data holds \[\]; a list of at least one text is expected"),
    ("model_name: 5", r"the entry model_name holds 5; a text in double quotes is expected"),
    ("seed: 1\nseed: 2", r"line 2: the entry seed is given twice; keep one of them"),
    ("epochs: 1\nnum_epochs: 2", r"line 2: the entry num_epochs is given twice; keep one of them"),
    ("seed: x\nbogus: 1", r"2 problems:(.|\n)*line 1: .*(.|\n)*line 2: train.py has no setting 'bogus'"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text[:20] for text, _ in BAD])
def test_a_bad_entry_is_named_with_file_and_line(text, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        options_of("train", config(tmp_path, text))
    err = capsys.readouterr().err
    assert re.search(message, err), err
    assert len(err) < 2000


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys):
    (tmp_path / "noise").write_bytes(b"\xff\xfe")
    (tmp_path / "args.yaml").touch()
    for path, fault in (
        (tmp_path / "gone", "does not exist"),
        (tmp_path / "arg.yaml", r"does not exist \(did you mean 'args.yaml'"),
        (tmp_path, "is a folder"),
        ("", "is given an empty"),
    ):
        with pytest.raises(SystemExit, match="2"):
            options_of("train", ["--config", str(path)])
        assert re.search(f"--config {path} ?{fault}", capsys.readouterr().err)
    with pytest.raises(SystemExit, match="2"):
        options_of("train", ["--config", str(tmp_path / "noise")])
    assert "noise cannot be read" in capsys.readouterr().err
