"""`train_mixer.py` as people call it."""

import csv
import json
import re

import pytest
import torch

import train_mixer

FEW_STEPS = ["--max-steps", "3", "--batch-size", "4", "--max-len", "32", "--log-interval", "1"]


@pytest.fixture
def arguments(tmp_path, hisco_table, tiny_encoder_folder):
    """A complete command line for a short run in `tmp_path / 'run'`."""
    return [
        *("--save-dir", str(tmp_path / "run")),
        *("--train-data", str(hisco_table("train.csv"))),
        *("--val-data", str(hisco_table("val.csv"))),
        *("--encoder", str(tiny_encoder_folder)),
        *FEW_STEPS,
    ]


def outcome(capsys, argv):
    code = train_mixer.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_run_leaves_checkpoints_logs_and_arguments(arguments, tmp_path, hisco_table, capsys):
    rows = ["en,farmer,6,,", ",farmer,6,,", ",<b>unknown</b>,677,703,", "da,ny,6,,", "da,anden,6,677,703"]
    code, out, err = outcome(capsys, [*arguments, "--val-data", str(hisco_table("val.csv", rows))])
    assert code == 0, err
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        *("3.bin", "last.bin", "best.bin", "logs.csv", "logs_by_group.csv", "metrics", "args.yaml", "run.log"),
        *("report.html", "README.md", "run.json"),
    }
    assert "training rows    8" in out
    assert "step 3 of 3" in out
    assert 'save_dir: "' in (tmp_path / "run" / "args.yaml").read_text()
    (row,) = csv.DictReader((tmp_path / "run" / "logs.csv").open())
    assert row["step"] == "3"
    assert float(row["val_loss"]) > 0

    metrics = json.loads((tmp_path / "run" / "metrics" / "3.json").read_text())
    assert metrics["val_loss"] == pytest.approx(float(row["val_loss"]))
    groups = {
        "codes": {"1": 3, "2": 1, "3+": 1},
        "language": {"en": 1, "unk": 2, "da": 2},
        "description": {"seen": 2, "unseen": 3},
    }
    prefixes = {"decoded": "decoded_", "teacher_forced": "", "flat": "flat_"}
    with (tmp_path / "run" / "logs_by_group.csv").open() as file:
        on_file = {(row["by"], row["group"]): int(row["rows"]) for row in csv.DictReader(file)}
    assert on_file == {
        (prefix + kind, name): n
        for prefix in prefixes.values()
        for kind, of in groups.items()
        for name, n in of.items()
    }
    for head, prefix in prefixes.items():
        figures = metrics["heads"][head]
        assert figures["rows"] == 5
        exact = row[f"{prefix}exact_set_acc"]
        assert figures["exact_set_acc"] == pytest.approx(float(exact))
        for kind, of in groups.items():
            assert {name: group["rows"] for name, group in figures[f"by_{kind}"].items()} == of
        assert sum(cell["rows"] for cell in figures["cells"]) == 5
        assert f"{float(exact):.1f} %" in out
    assert metrics["mistakes"]["head"] == "decoded"
    assert "<b>unknown</b>" in {text for code in metrics["mistakes"]["worst_covered"] for text in code["examples"]}
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Step 3 of 3" in report
    assert "&lt;b&gt;unknown&lt;/b&gt;" in report
    assert "<b>" not in report
    card = (tmp_path / "run" / "README.md").read_text()
    assert "validation rows: 5" in card
    assert "`--max-steps` 3" in card
    assert "`--seed`" not in card
    assert "python train_mixer.py --save-dir" in card
    assert re.search(r"decoded: exact sets \S+ % of 5 rows \(seen \S+ %, unseen \S+ %\), F1", out)


def test_a_finished_run_says_so_and_a_longer_one_goes_on(arguments, tmp_path, capsys):
    shown = []
    code, out, err = outcome(capsys, arguments)
    assert code == 0
    shown += [out, err]
    drawn = [tmp_path / "run" / name for name in ("report.html", "README.md")]
    for page in drawn:
        page.unlink()
    code, out, err = outcome(capsys, arguments)
    assert all(page.exists() for page in drawn), "what could not be drawn then is drawn now"
    shown += [out, err]
    written = (tmp_path / "run" / "run.log").read_text().splitlines()
    assert [line for line in written if not line.startswith("---")] == "".join(shown).splitlines()
    assert code == 0
    assert "The run is complete (step 3 of 3)" in out
    code, out, _ = outcome(capsys, [*arguments, "--max-steps", "5"])
    assert code == 0
    assert "step 3, from" in out
    assert "--max-steps 5 differs from the checkpoint's 3; the flag's is used" in out
    assert torch.load(tmp_path / "run" / "last.bin", weights_only=True)["step"] == 5


def test_the_same_seed_gives_the_same_weights(arguments, tmp_path, capsys):
    states = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert outcome(capsys, [*arguments, "--save-dir", str(tmp_path / name), "--seed", seed])[0] == 0
        states.append(torch.load(tmp_path / name / "last.bin", weights_only=True)["model"])
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_general_purpose_codes_get_a_key_of_their_own(arguments, tmp_path, hisco_table, capsys):
    rows = ["en,farmer,01,A7", "en,smith,NA,01", "da,bonde,nan,", "en,baker,007,"]
    table = hisco_table("own.csv", rows, "lang,occ1,first,second")
    argv = [*arguments, "--formatter", "gpf", "--target-cols", "first", "second", "--block-size", "3"]
    argv += ["--train-data", str(table), "--val-data", str(table)]
    code, _, err = outcome(capsys, argv)
    assert code == 0, err
    written = (tmp_path / "run" / "key.csv").read_text()
    assert written == "system_code,code\n01,0\nA7,1\nNA,2\nnan,3\n007,4\n"
    state = torch.load(tmp_path / "run" / "last.bin", weights_only=True)
    assert state["key"] == {"01": 0, "A7": 1, "NA": 2, "nan": 3, "007": 4}
    assert state["model"]["linear_decoder.weight"].shape[0] == 5


def test_a_key_is_written_only_for_data_that_are_good(arguments, tmp_path, hisco_table, capsys):
    argv = [*arguments, "--formatter", "gpf", "--target-cols", "code", "--block-size", "3"]
    bad = str(hisco_table("bad.csv", ["en,farmer,a b", "en,smith,c"], "lang,occ1,code"))
    good = str(hisco_table("good.csv", ["en,farmer,ab", "en,smith,c"], "lang,occ1,code"))
    code, _, err = outcome(capsys, [*argv, "--train-data", bad, "--val-data", good])
    assert code == 2
    assert "1 cell: a code that the formatter cannot write" in err
    assert not (tmp_path / "run").exists()
    assert outcome(capsys, [*argv, "--train-data", good, "--val-data", good])[0] == 0
    assert (tmp_path / "run" / "key.csv").read_text() == "system_code,code\nab,0\nc,1\n"


def test_codes_that_only_validation_has_ask_for_a_key_of_all(arguments, tmp_path, hisco_table, capsys):
    argv = [*arguments, "--formatter", "gpf", "--target-cols", "code", "--block-size", "3"]
    train = str(hisco_table("t.csv", ["en,farmer,a", "en,smith,b"], "lang,occ1,code"))
    val = str(hisco_table("v.csv", ["en,farmer,a", "en,king,z"], "lang,occ1,code"))
    argv += ["--train-data", train, "--val-data", val]
    code, _, err = outcome(capsys, argv)
    assert code == 2
    assert "v.csv, row 3, column 'code': 'z'" in err
    assert (
        "of those of the validation data 1 code cannot be learnt ('z'). Give a key that holds all codes, with --key"
        in err
    )
    key = tmp_path / "key.csv"
    key.write_text("system_code,code\na,0\nb,1\n")
    code, _, err = outcome(capsys, [*argv, "--key", str(key)])
    assert code == 2
    assert "No key is given" not in err


def test_a_given_key_decides_the_classes(arguments, tmp_path, hisco_table, capsys):
    table = hisco_table("own.csv", ["en,farmer,a", "en,smith,b"], "lang,occ1,code")
    key = tmp_path / "given.csv"
    key.write_text("system_code,code\nz,0\nb,1\na,2\n")
    argv = [*arguments, "--formatter", "gpf", "--target-cols", "code", "--train-data", str(table)]
    argv += ["--val-data", str(table), "--key", str(key)]
    assert outcome(capsys, argv)[0] == 0
    assert torch.load(tmp_path / "run" / "last.bin", weights_only=True)["key"] == {"z": 0, "b": 1, "a": 2}
    assert (tmp_path / "run" / "key.csv").read_text() == key.read_text()


def test_occ1950_trains(arguments, hisco_table, tmp_path, capsys):
    table = hisco_table("occ.csv", ["en,farmer,100,", "en,smith,501,043"], "lang,occ1,OCC1950_1,OCC1950_2")
    argv = [*arguments, "--formatter", "occ1950", "--train-data", str(table), "--val-data", str(table)]
    code, _, err = outcome(capsys, argv)
    assert code == 0, err
    state = torch.load(tmp_path / "run" / "last.bin", weights_only=True)
    assert state["model"]["linear_decoder.weight"].shape[0] == 1000


def test_a_checkpoint_of_another_run_gives_the_weights(arguments, tmp_path, capsys):
    assert outcome(capsys, arguments)[0] == 0
    first = tmp_path / "run" / "last.bin"
    argv = [*arguments, "--save-dir", str(tmp_path / "second"), "--initial-checkpoint", str(first)]
    code, out, _ = outcome(capsys, argv)
    assert code == 0
    assert "1,919 classes carried over" in out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--warmup-pct", "5"], "--warmup-pct is 5.0; it must lie in 0..1 (5 % is 0.05)"),
        (["--warmup-pct", "0.1", "--warmup-steps", "7"], "--warmup-pct and --warmup-steps both set the warm-up"),
        (["--formatter", "gpf"], "--formatter gpf needs --target-cols"),
        (["--key", "k.csv"], "--key is for --formatter gpf"),
        (["--augmentation-prob", "30"], "--augmentation-prob is 30.0; it must lie in 0..1"),
        (["--unk-lang-prob", "-1"], "--unk-lang-prob is -1.0; it must lie in 0..1"),
        (["--seq2seq-weight", "2"], "--seq2seq-weight is 2.0; it must lie in 0..1"),
        (["--learning-rate", "-1"], "--learning-rate is -1.0; it must lie in 0..1,000"),
        (["--initial-checkpoint", "no/such.bin"], "--initial-checkpoint no/such.bin does not exist"),
        (["--only-encoder"], "--only-encoder says what to take of --initial-checkpoint"),
        (["--val-data", "no/such.csv"], "no/such.csv"),
        (["--formatter", "occ1950"], "have no columns 'OCC1950_1', 'OCC1950_2'"),
        (["--formatter", "occ1950"], "--target-cols names its code columns where they are called otherwise"),
        (["--max-len", "100000"], "--max-len is 100000, but the encoder"),
        (
            ["--formatter", "gpf", "--target-cols", "code1", "code2", "--block-size", "99"],
            "use fewer code columns (--target-cols) or a smaller --block-size",
        ),
        (["--fn-word-freq", "no/such.csv"], "--fn-word-freq: There is no file no/such.csv"),
    ],
)
def test_bad_usage_ends_with_code_2_and_one_message(arguments, tmp_path, capsys, extra, message):
    code, _, err = outcome(capsys, [*arguments, *extra])
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("run/*.bin"))


def test_all_problems_are_told_at_once(arguments, hisco_table, tmp_path, capsys):
    bad = hisco_table("bad.csv", ["en,farmer,6,,", "en,smith,5000,,", "en,tailor,x,,", "en,,6,,", "en,baker,,,"])
    argv = [*arguments, "--train-data", str(bad), "--val-data", str(bad)]
    code, _, err = outcome(capsys, argv)
    assert code == 2
    assert "bad.csv" in err
    assert "row 3" in err
    assert "5000" in err
    assert "row 4" in err
    assert "row 6" in err
    code, _, err = outcome(capsys, ["--warmup-pct", "9", "--train-data", "a.csv", "--val-data", "b.csv"])
    assert code == 2
    for part in ("--save-dir is missing", "--warmup-pct is 9.0", "a.csv", "b.csv"):
        assert part in err


def test_files_that_lack_the_same_columns_are_told_together(arguments, hisco_table, capsys):
    a, b, c = (str(hisco_table(f"{name}.csv", ["en,farmer,6"], "lang,occ1,code1")) for name in "abc")
    code, _, err = outcome(capsys, [*arguments, "--train-data", a, b, "--val-data", c])
    assert code == 2
    assert f"{a}, {b} and {c} have no columns 'code2', 'code3', 'code4', 'code5'; the columns of the first are: " in err
    assert "(see --train-data, --val-data)" in err
    assert err.count("'code2'") == 1


def test_a_cpu_is_said_to_gain_nothing_from_mixed_precision(arguments, capsys):
    slower = "--use-amp is meant for GPUs: on most CPUs mixed precision is slower"
    assert slower in outcome(capsys, [*arguments, "--use-amp", "--print-config"])[1]
    assert slower not in outcome(capsys, [*arguments, "--print-config"])[1]


def test_languages_that_the_initial_weights_do_not_know_are_noted(arguments, tmp_path, hisco_table, capsys):
    known = str(hisco_table("known.csv", ["ge,bauer,6,,", "en,farmer,6,,", "unk,x,6,,"]))
    assert outcome(capsys, [*arguments, "--train-data", known])[0] == 0
    first = tmp_path / "run" / "last.bin"
    other = str(hisco_table("other.csv", ["de,bauer,6,,", "en,farmer,6,,", "xx,y,6,,", "unk,x,6,,"]))
    argv = [*arguments, "--save-dir", str(tmp_path / "second"), "--initial-checkpoint", str(first), "--print-config"]
    out = outcome(capsys, [*argv, "--train-data", other])[1]
    assert (
        f"{first} has not learnt these languages of the training data: 'de' (there: 'ge'), 'xx'. It knows ge, " in out
    )
    assert "has not learnt" not in outcome(capsys, [*argv, "--train-data", known])[1]
    entries = torch.load(first, weights_only=True)
    torch.save({"model": entries["model"]}, first)
    assert "has not learnt" not in outcome(capsys, [*argv, "--train-data", other])[1]


def test_an_empty_table_is_named(arguments, hisco_table, capsys):
    code, _, err = outcome(capsys, [*arguments, "--val-data", str(hisco_table("empty.csv", []))])
    assert code == 2
    assert "empty.csv has no rows" in err


def test_a_save_folder_that_is_a_file_is_refused(arguments, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    code, _, err = outcome(capsys, [*arguments, "--save-dir", str(tmp_path / "file")])
    assert code == 2
    assert "this is a file; give a folder" in err
    assert (tmp_path / "file").read_text() == "x"


def test_an_encoder_that_cannot_be_had_is_explained(arguments, capsys):
    code, _, err = outcome(capsys, [*arguments, "--encoder", "nobody/no-such-encoder"])
    assert code == 2
    assert "--encoder FOLDER" in err


def test_the_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as end:
        train_mixer.main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    for flag in (
        "--save-dir",
        "--only-encoder",
        "--local_rank",
        "--amp-dtype",
        "--no-tf32",
        "--demo",
        "--fn-word-freq",
    ):
        assert flag in out
