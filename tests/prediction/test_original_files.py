"""Files of the original's scripts, published models and spellings of languages, from the command line."""

from __future__ import annotations

import csv
import errno
import json
import re

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from histocc import OccCANINE
from histocc.__main__ import main
from tests.prediction.models import OWN_KEY, make, own_system, publish, save_checkpoint

FLAGS = {
    "own": ["--system", "own", "--target-cols", "own_1", "own_2"],
    "pst": ["--system", "pst", "--target-cols", "pst_1", "pst_2", "pst_3", "--use-within-block-sep"],
    "hisco": [],
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    return home


@pytest.fixture
def encoder(golden):
    return ["--encoder", str(golden / "prediction" / "encoder_config.json")]


@pytest.fixture
def tiny(golden):
    """As the encoder of models made here."""
    return ["--encoder", str(golden / "trajectories" / "encoder_config.json")]


def outcome(capsys, *argv):
    capsys.readouterr()
    try:
        code = main([str(a) for a in argv])
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def write(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def codes_in(path):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [[value for name, value in row.items() if name.startswith("code_") and value] for row in rows]


@pytest.mark.parametrize("name", FLAGS)
def test_a_table_gets_the_codes_that_the_original_gives(name, golden, encoder, tmp_path, capsys):
    expected = json.loads((golden / "prediction" / f"{name}.json").read_text(encoding="utf-8"))
    table = write(tmp_path / "in.csv", ["occ1", "lang"], zip(expected["occ1"], expected["lang"]))
    # These models were asked in the languages as they are spelt.
    spelt = write(tmp_path / "map.csv", ["spelt", "code"], [(each, each) for each in sorted(set(expected["lang"]))])
    argv = ["predict", "--model", golden / "prediction" / f"{name}.bin", *encoder, *FLAGS[name]]
    argv += ["--input", table, "--language-col", "lang", "--language-map", spelt, "--output", tmp_path / "out.csv"]
    code, out, err = outcome(capsys, *argv)
    assert code == 0, err
    answer = expected["predictions"]["greedy"]
    columns = [i for i, column in enumerate(answer["columns"]) if column.startswith(f"{name}_")]
    wanted = [list(dict.fromkeys(row[i] for i in columns if row[i] not in (None, "nan"))) for row in answer["rows"]]
    assert codes_in(tmp_path / "out.csv") == wanted
    assert len(set(map(tuple, wanted))) > 5
    assert ("--block-size, as they were given to finetune.py" in out) == (name != "hisco")


def original(tmp_path, config, key=OWN_KEY, kind="mixer", **system):
    path = tmp_path / "m.bin"
    torch.save({"model": make(kind, config, own_system(**system)).state_dict(), "step": 1, "key": key}, path)
    return path


def test_such_a_file_is_judged_and_exported_too(tmp_path, tiny_canine_config, tiny, capsys):
    path = original(tmp_path, tiny_canine_config)
    own = ["--model", path, *tiny, "--system", "mine", "--block-size", 5, "--target-cols", "a", "b"]
    table = write(tmp_path / "in.csv", ["occ1", "a", "b"], [["smith", "01A", "9"], ["baker", "9", ""]])
    code, out, err = outcome(capsys, "evaluate", *own, "--input", table, "--output", tmp_path / "judged")
    assert code == 0, err
    assert "does not say" not in out, "nothing had to be assumed"
    assert json.loads((tmp_path / "judged" / "evaluation.json").read_text())["rows"] == 2
    code, out, err = outcome(capsys, "export", *own, "--output", tmp_path / "model")
    assert code == 0, err
    outputs = []
    for name, model in (("a", own), ("b", ["--model", tmp_path / "model"])):
        argv = ["predict", *model, "--input", table, "--output", tmp_path / f"{name}.csv"]
        assert outcome(capsys, *argv, "--keep-cols", "occ1")[0] == 0
        outputs.append((tmp_path / f"{name}.csv").read_text())
    assert outputs[0] == outputs[1]
    assert outputs[0].splitlines()[0] == "occ1,code_1,code_2,confidence,method"


NEEDLESS = "says itself what it is, 4 codes of up to 3 characters, up to 2 a text, and its encoder: leave out "
HISCO = "is a model of hisco: 1,919 codes of up to 5 characters, up to 5 a text: leave out "


@pytest.mark.parametrize(
    ("file", "flags", "message"),
    [
        ("ours", ["--system", "own"], f"{NEEDLESS}--system"),
        ("ours", ["--block-size", "3", "--target-cols", "a", "b"], f"{NEEDLESS}--target-cols, --block-size"),
        ("ours", ["--encoder", "x"], f"{NEEDLESS}--encoder"),
        ("hisco", ["--block-size", "5"], f"{HISCO}--block-size"),
        ("hisco", ["--system", "hisco", "--use-within-block-sep"], f"{HISCO}--use-within-block-sep"),
        (
            "hisco",
            ["--system", "own"],
            "the decoder in .*hisco.bin writes 19 tokens, and the general alphabet makes 2,087",
        ),
        (
            "own",
            [],
            r"no HISCO model: it has 4 codes, 01A, 02B, -1 among them. Name its system with --system \(any name, for "
            "codes of one's own\\), and say with --target-cols and --block-size",
        ),
        (
            "own",
            ["--system", "own", "--block-size", "2"],
            "the code '01A' of .* has 3 characters, more than --block-size 2",
        ),
        (
            "own",
            ["--system", "own", "--use-within-block-sep"],
            r"no code of .* is a list of parts \('01A', '02B', '-1', ...\): leave out --use-within-block-sep",
        ),
        (
            "own",
            ["--system", "own", "--block-size", "64"],
            r"4 codes of 64 tokens are more than a decoder writes, 127 tokens in all: .*\(--target-cols\)",
        ),
        ("own", ["--system", "own", "--block-size", "0"], "--block-size is 0; it must lie in 1..127"),
        ("parts", ["--system", "p"], "are lists of parts, such as '1,2': give --use-within-block-sep"),
        ("own", ["--system", "own", "--no-encoder"], "unrecognized arguments: --no-encoder"),
        ("published", ["--system", "hisco"], "OccCANINE is a published model, of the system hisco: leave out --system"),
    ],
)
def test_wrong_and_needless_flags_say_what_the_file_holds(
    file, flags, message, golden, cache, encoder, tmp_path, tiny_canine_config, capsys
):
    argv = ["--model", "OccCANINE", *encoder]
    if file == "ours":
        save_checkpoint(tmp_path / "ours.bin", "mixer", tiny_canine_config, own_system())
        argv = ["--model", tmp_path / "ours.bin"]
    elif file == "hisco":
        argv = ["--model", golden / "prediction" / "hisco.bin", *encoder]
    elif file != "published":
        key = {"1,2": 0, "1,3": 1, "2,0": 2, "2,1": 3} if file == "parts" else OWN_KEY
        argv = ["--model", original(tmp_path, tiny_canine_config, key), *encoder]
    table = write(tmp_path / "in.csv", ["occ1"], [["smith"]])
    code, _, err = outcome(capsys, "predict", *argv, "--input", table, "--output", tmp_path / "out.csv", *flags)
    assert code == 2

    assert re.search(message, err), err
    assert not (tmp_path / "out.csv").exists()


def test_an_encoder_that_does_not_fit_names_the_flag(golden, tmp_path, capsys):
    table = write(tmp_path / "in.csv", ["occ1"], [["smith"]])
    argv = ["predict", "--model", golden / "prediction" / "hisco.bin", "--input", table, "--output", tmp_path / "o.csv"]
    code, _, err = outcome(capsys, *argv)
    assert code == 2
    assert "give what it was trained with with --encoder, a folder with its config.json" in err


def test_work_left_by_other_flags_is_done_again(golden, encoder, tmp_path, monkeypatch, capsys):
    """What a file of the original does not say decides its codes: work under other flags must not be used."""
    table = write(tmp_path / "in.csv", ["occ1"], [["smith"], ["baker"]])
    argv = ["predict", "--model", golden / "prediction" / "own.bin", *encoder, "--system", "own", "--input", table]
    argv += ["--output", tmp_path / "out.csv"]
    two, three = (["--target-cols", *columns] for columns in (["a", "b"], ["a", "b", "c"]))
    assert outcome(capsys, *argv, *three)[0] == 0
    alone = (tmp_path / "out.csv").read_bytes()
    (tmp_path / "out.csv").unlink()
    with monkeypatch.context() as disk:
        disk.setattr("histocc.runs.predict.write_predictions", full_disk)
        code, _, err = outcome(capsys, *argv, *two)
    assert code == 2
    assert "What is coded so far is kept in" in err
    code, _, err = outcome(capsys, *argv, *three)
    assert code == 0, err
    assert (tmp_path / "out.csv").read_bytes() == alone


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


# --- Languages --------------------------------------------------------------------------------------------------------


def test_languages_are_read_as_preparation_reads_them(tmp_path, tiny_canine_config, capsys):
    model = tmp_path / "m.bin"
    save_checkpoint(model, "mixer", tiny_canine_config, own_system(), languages=["ge", "da", "sv"])
    spelt = [("ge", "ge"), ("German", "ge"), ("DE", "ge"), ("de ", "ge"), ("dan", "da"), ("sv", "sv"), ("", "unk")]
    argv = ["predict", "--model", model, "--language-col", "lang"]
    for name, column in (("spelt", 0), ("codes", 1)):
        rows = [(f"smith {i}", pair[column]) for i, pair in enumerate(spelt)]
        table = write(tmp_path / f"{name}.csv", ["occ1", "lang"], rows)
        code, out, err = outcome(capsys, *argv, "--input", table, "--output", tmp_path / f"{name}.out.csv")
        assert code == 0, err
        note = "'German' as 'ge' (1 row), 'DE' as 'ge' (1 row), 'de' as 'ge' (1 row), 'dan' as 'da' (1 row) (--l"
        assert (note in out) == (name == "spelt")
    answers = [codes_in(tmp_path / f"{name}.out.csv") for name in ("spelt", "codes")]
    assert answers[0] == answers[1]

    table = write(tmp_path / "strange.csv", ["occ1", "lang"], [["smith", "fr"], ["smith", "Platt"], ["baker", "Platt"]])
    code, _, err = outcome(capsys, *argv, "--input", table, "--output", tmp_path / "s.csv")
    assert code == 2
    assert "does not know: 'fr' (1 rows), 'Platt' (2 rows). It knows da, ge, sv, and unk for any other" in err
    own = write(tmp_path / "map.csv", ["spelt", "code"], [["platt", "ge"], ["fr", "da"]])
    argv += ["--language-map", own, "--input", table, "--output", tmp_path / "s.csv"]
    code, out, err = outcome(capsys, *argv)
    assert code == 0, err
    assert "'fr' as 'da' (1 row), 'Platt' as 'ge' (2 rows)" in out


def test_languages_play_no_part_in_a_model_trained_without_any(tmp_path, tiny_canine_config, capsys):
    model = tmp_path / "m.bin"
    save_checkpoint(model, "mixer", tiny_canine_config, own_system(), languages=["unk"])
    texts = [f"smith {i}" for i in range(5)]
    argv = ["predict", "--model", model, "--input", write(tmp_path / "in.csv", ["occ1"], [[text] for text in texts])]
    answers = []
    for more in ([], ["--language", "da"]):
        code, out, err = outcome(capsys, *argv, *more, "--output", tmp_path / "out.csv", "--overwrite")
        assert code == 0, err
        assert ("Languages not used: the model was trained without any" in out) == bool(more)
        answers.append(codes_in(tmp_path / "out.csv"))
    assert answers[0] == answers[1]


# --- Thresholds -------------------------------------------------------------------------------------------------------


def test_published_models_have_thresholds_by_language(cache, tiny, tmp_path, tiny_canine_config, capsys):
    model = publish(cache, "Christianvedel/OccCANINE", "flat", tiny_canine_config)
    (weights,) = cache.rglob("model.safetensors")
    texts = [
        (f"{job} {i}", language) for job in ("smith", "baker") for i in range(9) for language in ("no", "is", "xx")
    ]
    table = write(tmp_path / "in.csv", ["occ1", "lang"], [(text, lang) for text, lang in texts if lang != "xx"])
    argv = ["predict", "--model", "OccCANINE", *tiny, "--input", table, "--language-col", "lang"]
    asked = OccCANINE("OccCANINE", encoder=tiny_canine_config, verbose=False)
    # Probabilities between the thresholds of the languages, .17 and .34.
    probabilities = asked([text for text, _ in texts], lang="no", what="probs", behavior="fast")
    third = torch.from_numpy(probabilities).sort(dim=1).values[:, -3].median()
    state = model.state_dict()
    save_file({**state, "out.bias": state["out.bias"] - third.logit() + torch.tensor(0.25).logit()}, weights)
    asked = OccCANINE("OccCANINE", encoder=tiny_canine_config, verbose=False)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    frame = asked([row["occ1"] for row in rows], lang=[row["lang"] for row in rows], behavior="fast")
    wanted = [
        [code for i in range(1, 6) if isinstance(code := row[f"hisco_{i}"], str) and code != "nan"]
        for _, row in frame.iterrows()
    ]
    assert outcome(capsys, *argv, "--output", tmp_path / "a.csv")[0] == 0
    assert codes_in(tmp_path / "a.csv") == wanted
    assert len(set(map(len, wanted))) > 1, "the thresholds decide"
    assert outcome(capsys, *argv, "--output", tmp_path / "b.csv", "--threshold", "1")[0] == 0
    assert codes_in(tmp_path / "b.csv") == [[]] * len(rows)

    # A table of thresholds beside the weights wins.
    weights.with_name("thresholds.csv").write_text("method,language,threshold,f1,rows\nflat,all,1.0,1,40\n")
    assert outcome(capsys, *argv, "--output", tmp_path / "c.csv")[0] == 0
    assert codes_in(tmp_path / "c.csv") == [[]] * len(rows)
