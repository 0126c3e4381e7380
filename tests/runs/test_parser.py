"""The parsers of the command lines: one vocabulary, old spellings, abbreviations, mistyped flags, and the help."""

from __future__ import annotations

import importlib
import re

import pytest

from histocc import __version__

SCRIPTS = ["train", "train_mixer", "finetune"]
COMMANDS = ["predict", "evaluate", "export"]
SAME = {
    "--save-dir": ("--save-path", "runs/a"),
    "--num-epochs": ("--epochs", "3"),
    "--initial-checkpoint": ("--checkpoint-path", "a.bin"),
    "--augmentation-prob": ("--alt-prob", "0.25"),
}


def parser_of(name):
    module = name if name in SCRIPTS else f"histocc.runs.{name}"
    return importlib.import_module(module).build_parser()


def refused(parser, argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(argv)
    return capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("flag", SAME)
def test_scripts_take_each_others_names_and_show_one(script, flag):
    other, value = SAME[flag]
    parser = parser_of(script)
    help_text = parser.format_help()
    assert not re.search(rf" {other}\b", help_text)
    if script == "finetune" and flag == "--augmentation-prob":
        return  # its noise is the data set's own
    assert re.search(rf" {flag}\b", help_text)
    assert vars(parser.parse_args([other, value])) == vars(parser.parse_args([flag, value]))
    assert vars(parser.parse_args([flag, "9" if value == "3" else value, other, value]))
    assert vars(parser.parse_args([])) == {**vars(parser.parse_args([flag, value])), **defaults(parser, flag)}


def defaults(parser, flag):
    action = parser.action_of(flag)
    return {action.dest: action.default}


# What stood for a flag before others of like names came; each script's own, as people have them in their notes.
ABBREVIATED = {
    "train": {"--num": "num_workers", "--ep": "num_epochs", "--al": "augmentation_prob", "--ch": "initial_checkpoint"}
    | {"--co": "compile", "--pr": "prefetch_factor", "--save-d": "save_dir", "--che": "initial_checkpoint"},
    "train_mixer": {"--num-e": "num_epochs", "--au": "augmentation_prob", "--c": "compile", "--v": "val_data"}
    | {"--in": "initial_checkpoint", "--save-d": "save_dir", "--num-t": "num_transformations"},
    "finetune": {"--save-p": "save_dir", "--c": "compile", "--v": "val_data", "--num-e": "num_epochs"}
    | {"--in": None, "--prep": "prepare_only", "--i": None},
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_abbreviations_stand_for_what_they_stood_for(script, capsys):
    for short, dest in ABBREVIATED[script].items():
        parser = parser_of(script)
        if dest is None:
            assert f"ambiguous option: {short}" in refused(parser, [short, "1"], capsys)
            continue
        action = next(a for a in parser._actions if a.dest == dest)
        value = [] if action.nargs == 0 else ["1"]
        given = getattr(parser.parse_args([short, *value]), dest)
        assert given in (True, 1, "1", ["1"]), (short, given)


@pytest.mark.parametrize(
    ("script", "typed", "meant"),
    [
        ("train", "--batchsize", "--batch-size"),
        ("train", "--save_dir", "--save-dir"),
        ("train", "--epoch-s", "--num-epochs"),
        ("train_mixer", "--traindata", "--train-data"),
        ("train_mixer", "-save-dir", "--save-dir"),
        ("finetune", "--targetcols=a", "--target-cols"),
        ("finetune", "--save-pth", "--save-dir"),
        ("predict", "--modell", "--model"),
        ("evaluate", "--tresholds", "--thresholds"),
        ("export", "--out-put", "--output"),
    ],
)
def test_a_mistyped_flag_is_named_with_what_was_meant(script, typed, meant, capsys):
    message = refused(parser_of(script), [typed, "1"], capsys)
    assert re.search(
        rf"error: unrecognized arguments: {typed.partition('=')[0]} \(did you mean {meant}( or .*)?\?\)", message
    )
    assert message.count("\n") == 2, "a line of usage, and one that says what is wrong"


def test_what_resembles_nothing_gets_no_advice_and_values_are_no_flags(capsys):
    parser = parser_of("finetune")
    assert refused(parser, ["--bogus", "--zzz"], capsys).endswith("unrecognized arguments: --bogus --zzz\n")
    assert refused(parser, ["--epochs", "1", "-9"], capsys).endswith("unrecognized arguments: -9\n")
    assert parser.parse_args(["--short-codes", "-1", "-2"]).short_codes == ["-1", "-2"]
    assert parser.parse_args(["--description-template=--x {occ}"]).description_template == "--x {occ}"


def test_words_that_belong_to_no_flag_may_be_a_name_without_its_quotes(capsys):
    message = refused(parser_of("finetune"), ["--input-col", "Occupation", "as", "written"], capsys)
    assert message.endswith("unrecognized arguments: as written (names with blanks need quotes)\n")


@pytest.mark.parametrize("name", SCRIPTS + COMMANDS)
def test_the_help_has_groups_units_an_example_and_the_version(name, capsys):
    parser = parser_of(name)
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["--version"])
    assert capsys.readouterr().out == f"histocc {__version__}\n"
    help_text = parser.format_help()
    titles = re.findall(r"^(\w[\w ]*):$", help_text, re.MULTILINE)
    assert titles[-2:] == ["other", "example"]
    assert len(titles) >= (8 if name in SCRIPTS else 3)
    assert "options" not in titles
    example = help_text.strip().splitlines()[-1].split()
    assert name in (example[1].removesuffix(".py"), example[1])
    argv = example[2:]
    parser.parse_args(argv)
    assert not re.search(r"\(default: (None|False|\[\])\)", help_text)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_help_says_what_a_number_counts(script):
    text = " ".join(parser_of(script).format_help().split())
    assert "--warmup-pct SHARE share of all steps" in text
    assert "not a percentage: 0.05 is 5 %" in text
    assert "--batch-size ROWS" in text
    assert "(train_mixer.py 512, train.py 256, finetune.py 128" in text
    if script == "train":
        assert "--sample-size POWER rows to use, as a power of ten" in text
