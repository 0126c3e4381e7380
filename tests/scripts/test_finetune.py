"""`finetune.py` as people call it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import finetune
import train_mixer
from histocc.runs.command_line import read_command_line
from histocc.runs.options import FinetuneOptions
from tests.running import contents, start_ranks
from tests.scripts.shown import check_unseen

JOBS = [
    ("farmer", "61110"),
    ("blacksmith", "83110"),
    ("baker", "77610"),
    ("school teacher", "13020"),
    ("labourer", "99910"),
    ("tailor, master", "79100"),
]
FEW_STEPS = ["--max-steps", "2", "--batch-size", "8", "--max-len", "32", "--log-interval", "1"]


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def table(tmp_path):
    """A table of 24 rows with the columns occ1 and code."""
    return write(
        tmp_path / "table.csv", [["occ1", "code"], *([f"{job} {i}", code] for i in range(4) for job, code in JOBS)]
    )


@pytest.fixture
def arguments(tmp_path, table, tiny_encoder_folder):
    """A complete command line for a short run in `tmp_path / 'run'`."""
    return [
        *("--dataset", str(table), "--target-cols", "code", "--save-path", str(tmp_path / "run")),
        *("--encoder", str(tiny_encoder_folder)),
        *FEW_STEPS,
    ]


def outcome(capsys, argv):
    code = finetune.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def load(path):
    return torch.load(path, weights_only=True)


def test_from_a_table_to_a_model(arguments, tmp_path, capsys):
    code, out, err = outcome(capsys, [*arguments, "--language", "en"])
    assert code == 0, err
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        *("data_train.csv", "data_val.csv", "key.csv", "codes.csv", "preparation.json", "args.yaml", "run.log"),
        *(
            "2.bin",
            "last.bin",
            "best.bin",
            "logs.csv",
            "logs_by_group.csv",
            "metrics",
            "report.html",
            "README.md",
            "run.json",
        ),
    }
    assert "24 rows read; 22 for training, 2 for validation, 0 left out; 6 codes" in out
    assert "Trained to step 2. The model is in" in out
    assert (tmp_path / "run" / "data_train.csv").read_text().startswith("occ1,code,lang\n")
    state = load(tmp_path / "run" / "last.bin")
    assert state["key"] == {code: i for i, (_, code) in enumerate(JOBS)}
    assert state["model"]["linear_decoder.weight"].shape[0] == 6
    assert state["model"]["decoder.head.bias"].shape == (2087,)
    (row,) = csv.DictReader((tmp_path / "run" / "logs.csv").open())
    assert row["step"] == "2"


def test_prepare_only_then_edit_then_train_then_edit_and_go_on(arguments, tmp_path, table, capsys):
    code, out, err = outcome(capsys, [*arguments, "--prepare-only", "--encoder", "not/needed/yet"])
    assert code == 0, err
    assert "repeat the command without --prepare-only" in out
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} == {
        *("data_train.csv", "data_val.csv", "key.csv", "codes.csv", "preparation.json"),
    }

    edited = (run / "data_train.csv").read_text().replace("labourer", "day labourer") + "smallholder,61110,en\n"
    (run / "data_train.csv").write_text(edited)
    with (run / "key.csv").open("a") as file:
        file.write("99920,6\n")
    argv = [*arguments, "--max-steps", "4"]
    table.unlink()
    code, out, err = outcome(capsys, argv)
    assert code == 0, err
    assert "prepared before; 7 codes" in out
    assert "are used as they are, with any edits; --overwrite prepares the table again" in out
    assert "training rows    23" in out
    assert load(run / "last.bin")["model"]["linear_decoder.weight"].shape[0] == 7
    assert (run / "data_train.csv").read_text() == edited

    (run / "data_train.csv").write_text(edited + "crofter,61110,en\n")
    code, out, err = outcome(capsys, [*arguments, "--max-steps", "5"])
    assert code == 0, err
    assert "step 4, from" in out
    assert "the training data has 24 rows now and had 23" in out
    assert load(run / "last.bin")["step"] == 5


def test_flags_that_disagree_with_a_prepared_folder_are_named(arguments, capsys):
    assert outcome(capsys, [*arguments, "--prepare-only"])[0] == 0
    code, out, _ = outcome(capsys, [*arguments, "--prepare-only", "--share-val", "0.5"])
    assert code == 0
    assert "Warning: prepared with --share-val 0.1; --share-val 0.5 has no effect" in out
    code, _, err = outcome(capsys, [*arguments, "--target-cols", "hisco"])
    assert code == 2
    assert "has no column 'hisco': it was prepared with --target-cols code" in err


def test_settings_of_a_prepared_folder_need_not_be_said_again(arguments, tmp_path, table, capsys):
    rows = [["occ1", "code"], ["none", "-1"], ["too long", "611100"], ["no code", ""]]
    write(
        table, rows + [[f"{job} {i}", code.lstrip("0")] for i in range(4) for job, code in [*JOBS, ("clerk", "03110")]]
    )
    preparing = [
        "--pad-codes",
        "--short-codes",
        "-1",
        "--drop-bad-labels",
        "--drop-uncoded",
        "--split-by",
        "description",
    ]
    code, _, err = outcome(capsys, [*arguments, *preparing, "--share-val", "0.2", "--prepare-only"])
    assert code == 0, err
    code, _, err = outcome(capsys, [*arguments[2:], "--max-steps", "1", "--eval-decode-samples", "0"])
    assert code == 0, err
    run = tmp_path / "run"
    settings = (run / "args.yaml").read_text().splitlines()
    for line in (
        f'dataset: "{table}"',
        *("pad_codes: true", 'short_codes: ["-1"]', "drop_bad_labels: true", "drop_uncoded: true", "share_val: 0.2"),
        *('split_by: "description"', "keep_missing_spellings: false", "val_data: null"),
    ):
        assert line in settings
    assert "`--split-by` description" in (run / "README.md").read_text()
    again = ["--config", run / "args.yaml", "--save-dir", tmp_path / "again", "--prepare-only"]
    code, _, err = outcome(capsys, again)
    assert code == 0, err
    for name in ("data_train.csv", "data_val.csv", "key.csv"):
        assert (run / name).read_text() == (tmp_path / "again" / name).read_text()


def test_another_table_is_not_taken_for_the_prepared_one(arguments, tmp_path, table, capsys):
    assert outcome(capsys, [*arguments, "--prepare-only"])[0] == 0
    with table.open("a") as file:
        file.write("king,00001\n")
    code, _, err = outcome(capsys, arguments)
    assert code == 2
    assert "table.csv is no longer the table that" in err
    code, out, err = outcome(capsys, [*arguments, "--keep-prepared", "--prepare-only"])
    assert code == 0
    assert "prepared before; 6 codes" in out
    code, _, err = outcome(capsys, [*arguments, "--keep-prepared", "--overwrite"])
    assert code == 2
    assert "--overwrite prepares the table again and --keep-prepared keeps what is there: give one of them" in err
    code, out, err = outcome(capsys, [*arguments, "--overwrite"])
    assert code == 0, err
    assert "25 rows read" in out
    assert "7 codes" in out
    before = contents(tmp_path / "run")
    code, _, err = outcome(capsys, [*arguments, "--overwrite"])
    assert code == 2
    assert "run holds 2.bin, best.bin, last.bin, logs.csv, logs_by_group.csv. Choose another --save-dir" in err
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--block-size", "7"], "another number of tokens a code, 5 and not 7 (--block-size)"),
        (["--freeze-encoder"], "last.bin is from a run without --freeze-encoder"),
    ],
)
def test_a_run_goes_on_with_the_flags_that_decide_its_weights(arguments, tmp_path, capsys, flag, message):
    assert outcome(capsys, arguments)[0] == 0
    before = contents(tmp_path / "run")
    code, _, err = outcome(capsys, [*arguments, "--max-steps", "4", *flag])
    assert code == 2
    assert message in err
    assert "Give the flags that the run was started with, or another save folder" in err
    assert contents(tmp_path / "run") == before


def test_a_folder_of_another_run_is_left_as_it_is(arguments, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.bin").write_bytes(b"weights")
    code, _, err = outcome(capsys, arguments)
    assert code == 2
    assert "last.bin is from a run whose data_train.csv, data_val.csv, key.csv are no longer all there" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.bin"]
    # Weights to start from may lie there.
    (tmp_path / "run" / "last.bin").rename(tmp_path / "run" / "published.bin")
    assert outcome(capsys, [*arguments, "--max-steps", "1"])[0] == 0


def test_hand_edits_that_do_not_fit_are_named(arguments, tmp_path, capsys):
    assert outcome(capsys, [*arguments, "--prepare-only"])[0] == 0
    for name in ("data_train.csv", "data_val.csv"):
        with (tmp_path / "run" / name).open("a") as file:
            file.write("king,00001,en\n")
    code, _, err = outcome(capsys, arguments)
    assert code == 2
    assert "data_train.csv, row 24, column 'code': '00001'" in err
    assert "data_val.csv, row 4, column 'code': '00001'" in err
    assert "not in the key; correct it, or add it to the key" in err


def test_a_key_that_changes_under_a_run(arguments, tmp_path, capsys):
    assert outcome(capsys, arguments)[0] == 0
    key = tmp_path / "run" / "key.csv"
    original = key.read_text()
    key.write_text(original + "99920,6\n")
    code, _, err = outcome(capsys, [*arguments, "--max-steps", "3"])
    assert code == 2
    assert "the key has 7 codes now and had 6 when" in err
    assert "give one of them as --initial-checkpoint" in err

    key.write_text(original.replace("61110", "61115"))
    for name in ("data_train.csv", "data_val.csv"):
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace("61110", "61115"))
    code, out, _ = outcome(capsys, [*arguments, "--max-steps", "3"])
    assert code == 0
    assert "Warning: 1 codes of the key, as '61115', have another class than when" in out


def test_a_folder_that_the_original_prepared(golden, tiny_encoder_folder, tmp_path, capsys):
    """Its key has a class for the empty code, whose name in its checkpoints is a number that is none."""
    original = golden / "finetune_prepare" / "two_cols_missing"
    shutil.copytree(original / "expected", tmp_path / "run")
    argv = [
        *("--dataset", original / "input.csv", "--target-cols", "hisco_1", "hisco_2", "--keep-prepared"),
        *("--save-path", tmp_path / "run", "--encoder", tiny_encoder_folder, *FEW_STEPS),
    ]
    assert outcome(capsys, argv)[0] == 0
    last = tmp_path / "run" / "last.bin"
    state = load(last)
    assert state["key"][""] == 2
    state["key"] = {float("nan") if code == "" else code: index for code, index in state["key"].items()}
    torch.save(state, last)
    code, out, err = outcome(capsys, [*argv, "--max-steps", "3"])
    assert code == 0, err
    assert "step 2, from" in out
    assert "have another class" not in out


def test_codes_that_are_lists(arguments, tmp_path, capsys):
    codes = ["1,13,0,0,0,0,0,0", "1,2,1,0,0,0,0,0", "15,2,1,0,0,0,0,0"]
    rows = [[f"job {i}", codes[i % 3], codes[(i + 1) % 3] if i % 2 else ""] for i in range(21)]
    path = write(tmp_path / "pst.csv", [["occ1", "pst_1", "pst_2"], *rows])
    every_code = tmp_path / "all.txt"
    every_code.write_text("\n".join([*codes, "2,0,0,0,0,0,0,0"]) + "\n")
    argv = [*arguments, "--dataset", path, "--target-cols", "pst_1", "pst_2", "--all-codes-file", every_code]
    code, _, err = outcome(capsys, argv)
    assert code == 2
    assert "--use-within-block-sep splits codes at commas" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rejected_rows.csv"]
    argv += ["--use-within-block-sep", "--block-size", "8"]
    code, out, err = outcome(capsys, argv)
    assert code == 0, err
    assert "1 code that the data lack added" in out
    assert "codes a row      up to 2, 8 tokens each" in out
    assert load(tmp_path / "run" / "last.bin")["key"] == {c: i for i, c in enumerate([*codes, "2,0,0,0,0,0,0,0"])}
    assert outcome(capsys, [*argv, "--max-steps", "3"])[0] == 0


def test_bad_rows_are_left_out_and_listed(arguments, tmp_path, table, capsys):
    with table.open("a") as file:
        file.write("sailor,98135000\ncook,53\nnobody,nan\n")
    code, _, err = outcome(capsys, arguments)
    assert code == 2
    assert "2 of 27 rows of table.csv do not fit" in err
    assert "too long: 1 row\n    row 26, column 'code': '98135000' (8 characters)" in err
    assert "too short: 1 row\n    row 27, column 'code': '53' (2 characters)" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rejected_rows.csv"]
    argv = [*arguments, "--prepare-only", "--drop-bad-labels", "--allow-codes-shorter-than-block-size"]
    code, out, _ = outcome(capsys, argv)
    assert code == 0
    assert "Read as no code: 'nan' 1 times" in out
    assert (tmp_path / "run" / "rejected_rows.csv").read_text().splitlines()[1].startswith("26,code,98135000,too long,")
    argv += ["--save-path", tmp_path / "kept", "--keep-missing-spellings"]
    assert outcome(capsys, argv)[0] == 0
    assert "nan," in (tmp_path / "kept" / "key.csv").read_text()


def test_a_language_column(arguments, tmp_path, capsys):
    rows = [[f"job {i}", "61110", "da" if i % 2 else "en"] for i in range(20)]
    path = write(tmp_path / "lang.csv", [["text", "code", "spoken"], *rows])
    argv = [*arguments, "--dataset", path, "--input-col", "text", "--language-col", "spoken", "--prepare-only"]
    assert outcome(capsys, argv)[0] == 0
    lines = (tmp_path / "run" / "data_train.csv").read_text().splitlines()
    assert {line.rsplit(",", 1)[1] for line in lines[1:]} == {"en", "da"}


def script(argv):
    return finetune.main(argv)


def test_two_processes_prepare_once_and_train_together(arguments, tmp_path):
    ranks = start_ranks(script, arguments, world_size=2, folder=tmp_path)
    for process in ranks:
        assert process.wait() == 0, process.output
    assert "24 rows read" in ranks[0].output
    assert "16 rows a step" in ranks[0].output
    assert "rows" not in ranks[1].output
    assert load(tmp_path / "run" / "last.bin")["step"] == 2


def test_one_of_two_processes_says_what_is_wrong_with_the_table(arguments, tmp_path):
    ranks = start_ranks(script, [*arguments, "--block-size", "6"], world_size=2, folder=tmp_path)
    assert ranks[0].wait() == 2
    assert ranks[1].wait() > 0
    assert "Error: 24 of 24 rows of table.csv do not fit" in ranks[0].output
    assert "Error: " not in ranks[1].output
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rejected_rows.csv"]


# --- Initial weights --------------------------------------------------------------------------------------------------


@pytest.fixture
def hisco_checkpoint(tmp_path, hisco_table, tiny_encoder_folder, capsys):
    """The last checkpoint of a run of train_mixer.py with HISCO classes."""
    argv = ["--save-dir", tmp_path / "hisco", "--train-data", hisco_table("a.csv"), "--val-data", hisco_table("b.csv")]
    argv += ["--encoder", tiny_encoder_folder, "--learning-rate", "0.01", *FEW_STEPS]
    assert train_mixer.main([str(a) for a in argv]) == 0
    capsys.readouterr()
    return tmp_path / "hisco" / "last.bin"


def test_a_hisco_checkpoint_gives_its_encoder_alone(arguments, tmp_path, hisco_checkpoint, capsys):
    argv = [*arguments, "--initial-checkpoint", hisco_checkpoint]
    code, _, err = outcome(capsys, argv)
    assert code == 2
    assert "writes 19 tokens, this run's formatter has 2087" in err
    assert "add --only-encoder" in err
    assert not (tmp_path / "run").exists()

    code, out, err = outcome(capsys, [*argv, "--only-encoder", "--freeze-encoder"])
    assert code == 0, err
    assert "encoder taken over" in out
    assert "carried over" not in out
    before, after = load(hisco_checkpoint)["model"], load(tmp_path / "run" / "last.bin")
    encoder = [name for name in before if name.startswith("encoder.")]
    assert all(torch.equal(before[name], after["model"][name]) for name in encoder)
    n_heads = sum(not name.startswith("encoder.") for name in after["model"])
    # One entry of the model, the positions, is no parameter.
    assert len(after["optimizer"]["state"]) == n_heads - 1


def test_a_run_of_ones_own_gives_the_encoder_without_network(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, _, err = outcome(capsys, arguments)
    assert code == 0, err
    run = tmp_path / "run"
    again = [*arguments[:4], "--save-dir", tmp_path / "second", *FEW_STEPS, "--print-config"]
    code, out, err = outcome(capsys, [*again, "--initial-checkpoint", run])
    assert code == 0, err
    assert f"encoder          from {run / 'best.bin'}, trained" in out
    assert f"initial weights from {run / 'best.bin'}: encoder and decoder taken over" in out
    code, out, err = outcome(capsys, [*arguments[:4], "--save-dir", run, *FEW_STEPS, "--max-steps", "3"])
    assert code == 0, err
    assert "start            step 2, from" in out
    code, _, err = outcome(capsys, [*again, "--initial-checkpoint", run, "--max-len", "5000"])
    assert code == 2
    assert f"the encoder of {run / 'best.bin'} has" in err
    assert "set --max-len 32 or less (it was trained with --max-len 32)" in err
    code, _, err = outcome(capsys, [*again, "--initial-checkpoint", run, "--encoder", tmp_path / "no"])
    assert code == 2
    assert "encoder" in err
    (tmp_path / "empty").mkdir()
    bad = [*again[:-1], "--prepare-only", "--share-val", "3", "--initial-checkpoint", tmp_path / "empty"]
    code, _, err = outcome(capsys, bad)
    assert code == 2
    assert "empty holds no weights: neither" in err
    assert "--share-val is 3" in err


def small_config(config):
    """`CanineConfig` with other defaults, those of `config`."""
    defaults = config.to_diff_dict()

    class SmallConfig(type(config)):
        def __init__(self, **options):
            super().__init__(**{**defaults, **options})

    return SmallConfig


def test_a_file_of_the_original_gives_the_encoder_without_network(
    arguments, tmp_path, capsys, monkeypatch, tiny_canine_config
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert outcome(capsys, arguments)[0] == 0
    state = load(tmp_path / "run" / "last.bin")
    original = tmp_path / "original.bin"
    torch.save({name: state[name] for name in ("model", "step", "key")}, original)
    again = [*arguments[:4], "--save-dir", tmp_path / "second", *FEW_STEPS, "--initial-checkpoint", original]
    code, _, err = outcome(capsys, [*again, "--print-config"])
    assert code == 2, "it has not the encoder of CANINE-s"
    assert "could not be fetched" in err or "local cache" in err
    # The file cannot be as large as CANINE-s here: CANINE-s is made as small.
    monkeypatch.setattr("transformers.CanineConfig", small_config(tiny_canine_config))
    code, out, err = outcome(capsys, again)
    assert code == 0, err
    assert f"encoder          from {original}, trained" in out


def test_heads_are_carried_over_code_by_code(arguments, tmp_path, capsys):
    argv = [*arguments, "--learning-rate", "0.01"]
    assert outcome(capsys, argv)[0] == 0
    first = tmp_path / "run" / "last.bin"
    rows = [[f"job {i}", code] for i in range(10) for code in ("99910", "12345", "61110")]
    argv = [*arguments, "--dataset", write(tmp_path / "new.csv", [["occ1", "code"], *rows])]
    argv += ["--save-path", tmp_path / "second", "--initial-checkpoint", first, "--learning-rate", "1e-12"]
    code, out, err = outcome(capsys, argv)
    assert code == 0, err
    assert "encoder and decoder taken over" in out
    assert "flat head: 2 classes carried over, 1 start fresh, 4 of the source are not used" in out
    warning = f"Warning: 4 codes of {first} have no class here"
    remedy = ["--all-codes-file", first.with_name("key.csv")]
    assert warning in out
    assert " ".join(map(str, remedy)) in out
    whole = outcome(capsys, [*argv, *remedy, "--save-path", tmp_path / "whole", "--print-config"])
    assert "flat head: 6 classes carried over, 1 start fresh" in whole[1]
    assert warning not in whole[1]
    theirs, ours = load(first), load(tmp_path / "second" / "last.bin")
    weight = "linear_decoder.weight"
    for code in ("99910", "61110"):
        there, here = theirs["model"][weight][theirs["key"][code]], ours["model"][weight][ours["key"][code]]
        torch.testing.assert_close(there, here)
    torch.testing.assert_close(theirs["model"]["decoder.head.weight"], ours["model"]["decoder.head.weight"])
    code, out, _ = outcome(capsys, [*argv, "--max-steps", "3"])
    assert code == 0
    assert "--initial-checkpoint is not used: the run is resumed from" in out


def test_what_the_initial_weights_were_trained_on_is_seen(arguments, tmp_path, capsys):
    assert outcome(capsys, arguments)[0] == 0
    trained = (tmp_path / "run" / "data_train.csv").read_text().splitlines()[1:4]
    rows = [[f"job {i}", code] for i in range(10) for code in ("99910", "12345")]
    table = write(tmp_path / "new.csv", [["occ1", "code"], *rows])
    seen = [[line.split(",")[0], "99910"] for line in trained]
    val = write(tmp_path / "val.csv", [["occ1", "code"], *seen, ["nobody knows", "99910"], ["job 1", "12345"]])
    argv = [*arguments, "--dataset", table, "--val-data", val, "--save-path", tmp_path / "second"]
    code, out, err = outcome(capsys, [*argv, "--initial-checkpoint", tmp_path / "run"])
    assert code == 0, err
    before = tmp_path / "run" / "data_train.csv"
    assert f"Descriptions of {before} count as seen: the initial weights were trained on them" in out
    (last,) = (tmp_path / "second" / "metrics").glob("*.json")
    groups = json.loads(last.read_text())["heads"]["decoded"]["by_description"]
    assert {name: group["rows"] for name, group in groups.items()} == {"seen": 4, "unseen": 1}


def test_safetensors_give_the_weights(arguments, tmp_path, capsys):
    assert outcome(capsys, arguments)[0] == 0
    weights = tmp_path / "weights.safetensors"
    save_file(load(tmp_path / "run" / "last.bin")["model"], weights)
    argv = [*arguments, "--save-path", tmp_path / "second", "--initial-checkpoint", weights]
    code, out, err = outcome(capsys, argv)
    assert code == 0, err
    assert f"initial weights from {weights}: encoder and decoder taken over" in out


def test_the_published_model_needs_the_hub(arguments, tmp_path, capsys, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(repository, name, **options):
        raise LocalEntryNotFoundError("no network here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    code, _, err = outcome(capsys, [*arguments, "--initial-checkpoint", "OCC-Canine-V1"])
    assert code == 2
    assert "the published weights christianvedel/OccCANINE are not in the local cache" in err
    assert not (tmp_path / "run").exists()


# --- Descriptions -----------------------------------------------------------------------------------------------------


def test_descriptions_are_joined(arguments, tmp_path, capsys):
    path = write(tmp_path / "desc.csv", [["c", "d"], ["61110", "General farmer"], ["99999", "Unused"]])
    argv = [*arguments, "--include-descriptions", "--descriptions-file", path]
    code, _, err = outcome(capsys, argv)
    assert code == 2
    assert "--descriptions-code-col" in err
    assert "--descriptions-text-col" in err
    assert not (tmp_path / "run").exists()
    argv += ["--descriptions-code-col", "c", "--descriptions-text-col", "d", "--description-prob", "0.25"]
    code, out, err = outcome(capsys, argv)
    assert code == 0, err
    assert "of 1 of 6 codes, joined to 25% of their training rows" in out


@pytest.mark.parametrize(("mapped", "language"), [(None, "ge"), ("da", "da")])
def test_languages_of_descriptions_are_spelt_as_in_the_table(arguments, tmp_path, mapped, language):
    rows = [["c", "d", "l"], ["61110", "Bauer", "German"], ["61110", "farmer", "EN"]]
    argv = [*arguments, "--include-descriptions", "--descriptions-file", str(write(tmp_path / "desc.csv", rows))]
    argv += ["--descriptions-code-col", "c", "--descriptions-text-col", "d", "--descriptions-lang-col", "l"]
    if mapped:
        argv += ["--language-map", str(write(tmp_path / "map.csv", [["spelling", "code"], ["german", mapped]]))]
    args = read_command_line(finetune.build_parser(), argv, finetune.demo_defaults)
    descriptions = finetune.check_arguments(FinetuneOptions.from_namespace(args))
    assert descriptions.find("61110", language) == descriptions.find("61110", "German") == "Bauer"
    assert descriptions.find("61110", "fr") == "farmer"


def test_without_a_file_of_descriptions_there_is_a_warning_and_training_goes_on(arguments, capsys):
    code, out, err = outcome(capsys, [*arguments, "--include-descriptions"])
    assert code == 0, err
    assert "Warning: --include-descriptions without --descriptions-file: no descriptions are joined" in out


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--dataset", "no/such.csv"], "There is no file no/such.csv"),
        (["--target-cols", "cod"], "table.csv has no column 'cod' (did you mean 'code'?)"),
        (["--input-col", "text"], "table.csv has no column 'text'"),
        (["--language-col", "lang"], "table.csv has no column 'lang'"),
        (["--language", "da", "--language-col", "occ1"], "Both --language da and --language-col occ1 are given"),
        (["--share-val", "1"], "--share-val is 1.0; it must lie in 0..1 without the ends"),
        (["--share-val", "0.001"], "24 rows cannot be split"),
        (["--block-size", "400"], "--block-size is 400; it must lie in 1..127 (the decoder takes labels of 129 tokens"),
        (["--max-len", "4000"], "--max-len is 4000, but the encoder"),
        (["--all-codes-file", "no.csv"], "--all-codes-file: There is no file no.csv"),
        (["--all-codes-col", "x"], "--all-codes-col names a column of --all-codes-file"),
        (["--description-prob", "2"], "--description-prob is 2.0; it must lie in 0..1"),
        (["--encoder", "nobody/no-such-encoder"], "--encoder FOLDER"),
        (["--initial-checkpoint", "no.bin"], "--initial-checkpoint no.bin does not exist"),
        (["--initial-checkpoint", "table.csv"], "table.csv"),
        (["--only-encoder"], "--only-encoder says what to take of --initial-checkpoint"),
        (["--warmup-pct", "5"], "--warmup-pct is 5.0; it must lie in 0..1"),
        (["--learning-rate", "-1"], "--learning-rate is -1.0; it must lie in 0..1,000"),
    ],
)
def test_bad_usage_ends_with_code_2_one_message_and_an_untouched_save_path(
    arguments, tmp_path, capsys, monkeypatch, extra, message
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = outcome(capsys, [*arguments, *extra])
    assert code == 2
    assert message in err
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty: it needs a header"),
        ([["occ1", "code"]], "no rows"),
        ([["occ1", "code"], ["farmer", "61110"]], "1 row cannot be split"),
        ([["occ1", "code"], ["farmer", ""], ["smith", "NA"]], "No row of bad.csv has a code in 'code'"),
    ],
)
def test_bad_tables(arguments, tmp_path, capsys, rows, message):
    path = write(tmp_path / "bad.csv", rows)
    code, _, err = outcome(capsys, [*arguments, "--dataset", path])
    assert code == 2
    assert message in err
    assert not (tmp_path / "run").exists()


BAD_ROWS = [["occ1", "code"], ["farmer", "6111é"], ["smith", "831100"], ["", "12345"]]
GAPS = [["occ1", "code", "c2", "c3"], *[["farmer", "61110", "", "12345"]] * 20]


@pytest.mark.parametrize(
    ("rows", "extra", "message"),
    [
        (BAD_ROWS, [], "3 of 3 rows of bad.csv do not fit"),
        (GAPS, ["--target-cols", "code", "c2", "c3"], "a gap before a later code"),
        (GAPS, ["--block-size", "6"], "20 of 20 rows of bad.csv do not fit"),
        (GAPS, ["--block-size", "4", "--drop-bad-labels"], "No row of bad.csv would be left"),
    ],
)
def test_bad_rows_are_listed_in_a_file(arguments, tmp_path, capsys, rows, extra, message):
    path = write(tmp_path / "bad.csv", rows)
    code, _, err = outcome(capsys, [*arguments, "--dataset", path, *extra])
    assert code == 2
    assert message in err
    assert f"All of them are listed in {tmp_path / 'run' / 'rejected_rows.csv'}" in err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["rejected_rows.csv"]
    assert len((tmp_path / "run" / "rejected_rows.csv").read_text().splitlines()) == len(rows)


def test_save_paths_that_cannot_be_written_to(arguments, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("x")
    code, _, err = outcome(capsys, [*arguments, "--save-path", tmp_path / "file"])
    assert code == 2
    assert "is a file" in err
    (tmp_path / "locked").mkdir()
    # Tests may run as root, for whom nothing is read-only.
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("locked"))
    code, _, err = outcome(capsys, [*arguments, "--save-path", tmp_path / "locked"])
    assert code == 2
    assert "no permission to write in" in err
    assert not list((tmp_path / "locked").iterdir())


def test_all_problems_with_the_flags_are_told_at_once(capsys):
    argv = ["--warmup-pct", "9", "--dataset", "no.csv", "--description-prob", "4", "--share-val", "3"]
    code, _, err = outcome(capsys, argv)
    assert code == 2
    for part in (
        *("--target-cols is missing", "--warmup-pct is 9.0", "There is no file no.csv", "--share-val is 3.0"),
        "--description-prob is 4.0",
    ):
        assert part in err
    assert err.startswith("Error: 5 problems:\n")
    assert err.count("\n  - ") == 5


def test_columns_files_and_flags_are_told_together_before_the_encoder(tmp_path, table, capsys):
    argv = [
        "--dataset",
        table,
        "--input-col",
        "ocupation",
        "--target-cols",
        "coed",
        "--language-map",
        tmp_path / "no.csv",
    ]
    argv += ["--save-dir", tmp_path / "run", "--encoder", tmp_path / "none", "--split-by", "parish"]
    code, _, err = outcome(capsys, [*argv, "--short-codes", "61110", "--warmup-pct", "5"])
    assert code == 2
    for told in (
        "'coed' (did you mean 'code'?)",
        "'ocupation'",
        "'parish'",
        "no.csv",
        "'61110'",
        "--warmup-pct is 5.0",
    ):
        assert told in err
    assert "encoder" not in err


def test_no_table_at_all(capsys, tmp_path):
    code, _, err = outcome(capsys, ["--target-cols", "code", "--save-path", tmp_path / "run"])
    assert code == 2
    assert "lacks data_train.csv, data_val.csv, key.csv: name the table to prepare with --dataset" in err


# --- Demo and help ----------------------------------------------------------------------------------------------------


def test_the_demo_runs_and_every_given_flag_wins(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = outcome(capsys, ["--demo", "--max-steps", "1", "--learning-rate", "0.5", "--language", "da"])
    assert code == 0, err
    saved = (tmp_path / "runs" / "demo-finetune" / "args.yaml").read_text()
    assert "learning_rate: 0.5\n" in saved
    assert "language_col: null\n" in saved
    assert 'target_cols: ["hisco_1", "hisco_2"]\n' in saved
    assert f"The model is in {Path('runs/demo-finetune/last.bin')}" in out
    assert "python finetune.py --dataset table.csv" in out
    trained, set_aside = (
        read(tmp_path / "runs" / "demo-finetune" / name) for name in ("data_train.csv", "data_val.csv")
    )
    codes = {
        (row["occ1"], row["lang"]): " & ".join(filter(None, (row["hisco_1"], row["hisco_2"]))) for row in set_aside
    }
    check_unseen(out, {row["occ1"].casefold() for row in trained}, codes)


def test_the_demo_takes_a_table_of_ones_own(arguments, tmp_path, capsys):
    code, out, err = outcome(capsys, [*arguments, "--demo"])
    assert code == 0, err
    assert "24 rows read" in out
    assert (tmp_path / "run" / "last.bin").exists()


def test_the_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as end:
        finetune.main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    flags = """--save-dir --save-interval --dataset --input-col --target-cols --language --language-col --block-size
    --share-val --use-within-block-sep --drop-bad-labels --allow-codes-shorter-than-block-size
    --log-interval --eval-interval --log-wandb --wandb-project-name --num-epochs --batch-size
    --num-workers --prefetch-factor --pin-memory --persistent-workers --learning-rate --seq2seq-weight
    --warmup-pct --warmup-steps --initial-checkpoint --only-encoder --freeze-encoder --use-amp
    --prepare-only --include-descriptions --description-prob --description-template --descriptions-file
    --descriptions-code-col --descriptions-text-col --descriptions-lang-col --all-codes-file
    --all-codes-col --distributed --local_rank --world-size --demo --encoder --amp-dtype --tf32
    --no-tf32 --compile --seed --max-val-samples --grad-accum-steps --max-steps --keep-checkpoints
    --keep-missing-spellings"""
    assert not [flag for flag in flags.split() if flag not in out]
