"""`histocc predict`, `evaluate` and `export` as people call them."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import finetune
import train
import train_mixer
from histocc import OccCANINE
from histocc.__main__ import main
from histocc.model_assets import Seq2SeqMixerOccCANINE_hub
from histocc.stored_model import load_stored_model
from tests.prediction.models import save_checkpoint
from tests.running import command, small_encoder, start_ranks, table

FIGURES = ("exact_set_acc", "precision", "recall", "f1")
TEXTS = [("smith", "en"), ("husmand og fisker", "da"), ("", "en"), ("smith", "en"), ("nan", ""), ("smith", "da")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs `mixer`, `flat` and `own`, a few steps each, and their tables."""
    folder = tmp_path_factory.mktemp("runs")
    encoder = small_encoder(folder / "encoder")
    rows = table(folder / "rows.csv", 60)
    steps = ["--max-steps", "2", "--batch-size", "8", "--max-len", "32", "--encoder", str(encoder)]
    assert train_mixer.main(command(folder / "mixer", encoder, rows, rows, *steps)) == 0
    argv = ["--train-data", str(rows), "--save-dir", str(folder / "flat"), "--epochs", "1", "--model-name", "m"]
    assert train.main([*argv, "--batch-size", "16", "--max-len", "32", "--encoder", str(encoder)]) == 0
    own = folder / "own.csv"
    own.write_text(
        "occ1,code,lang\n" + "".join(f"text {i % 9},0{i % 3}A,{'en' if i % 2 else 'da'}\n" for i in range(40))
    )
    argv = ["--dataset", str(own), "--target-cols", "code", "--block-size", "3", "--save-path", str(folder / "own")]
    assert finetune.main([*argv, "--language-col", "lang", *steps]) == 0
    return folder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("occ1", "lang"), *TEXTS])
    return path


def outcome(capsys, *argv):
    capsys.readouterr()
    code = main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def read(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", [None, "flat", "full"])
def test_a_table_is_coded_from_a_run_folder(runs, texts, tmp_path, capsys, method):
    flags = [] if method is None else ["--method", method, "--threshold", "0"]
    argv = ["predict", "--model", runs / "mixer", "--input", texts, "--language-col", "lang"]
    code, out, err = outcome(capsys, *argv, "--output", tmp_path / "out.csv", *flags)
    assert code == 0, err
    assert "6 rows coded (4 distinct texts)" in out
    assert "1 rows have no text in 'occ1', and no code" in out
    rows = read(tmp_path / "out.csv")
    assert [(row["occ1"], row["lang"]) for row in rows] == TEXTS
    assert {row["method"] for row in rows} == {method or "greedy", ""}
    assert rows[0] == rows[3]
    assert rows[2]["code_1"] == rows[2]["confidence"] == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "texts.csv"]


def test_predictions_are_those_of_the_model(runs, texts, tmp_path, capsys):
    """Flat: the five best classes; greedy: token by token with the model's own forward, as a plain loop decodes."""
    stored = load_stored_model(runs / "mixer" / "best.bin")
    model, formatter = stored.model, stored.system.formatter
    text = "en[SEP]smith"
    ids = torch.zeros(1, 32, dtype=torch.int64)
    ids[0, : len(text) + 2] = torch.tensor([0xE000, *map(ord, text), 0xE001])
    mask = (ids > 0).long()
    with torch.no_grad():
        best, classes = model.forward_linear(ids, mask).sigmoid()[0].topk(5)
        memory, _ = model.encode(ids, mask)
        tokens, sure = [2], 1.0
        for _ in range(formatter.max_seq_len - 1):
            causal = torch.full((len(tokens), len(tokens)), -torch.inf).triu(1)
            step = model.decode(memory, torch.tensor([tokens]), causal, None)[0, -1].softmax(-1)
            tokens.append(int(step.argmax()))
            sure *= float(step.max())
    codes = list(dict.fromkeys(filter(None, formatter.clean_pred(tokens).split("&"))))
    argv = ["predict", "--model", runs / "mixer" / "best.bin", "--input", texts, "--language-col", "lang"]
    assert outcome(capsys, *argv, "--output", tmp_path / "flat.csv", "--method", "flat", "--threshold", "0")[0] == 0
    assert outcome(capsys, *argv, "--output", tmp_path / "greedy.csv")[0] == 0
    flat, greedy = read(tmp_path / "flat.csv")[0], read(tmp_path / "greedy.csv")[0]
    assert [flat[f"code_{i}"] for i in range(1, 6)] == [stored.system.codes[i] for i in classes]
    assert float(flat["confidence"]) == pytest.approx(float(best[0]), abs=2e-6)
    assert [code for i in range(1, 6) if (code := greedy[f"code_{i}"])] == codes
    if len(codes) == 1:
        assert float(greedy["confidence"]) == pytest.approx(sure, abs=2e-6)


def test_batches_and_their_order_do_not_matter(runs, texts, tmp_path, capsys):
    argv = ["predict", "--model", runs / "own", "--input", texts, "--language-col", "lang", "--top-k", 3]
    outputs = []
    for size in (1, 3, 256):
        assert outcome(capsys, *argv, "--output", tmp_path / f"{size}.csv", "--batch-size", size)[0] == 0
        outputs.append(read(tmp_path / f"{size}.csv"))
    for rows in outputs[1:]:
        for row, wanted in zip(rows, outputs[0]):
            for name, value in row.items():
                if name.startswith("confidence") and value:
                    assert float(value) == pytest.approx(float(wanted[name]), abs=1e-5)
                else:
                    assert value == wanted[name]


def test_two_processes_write_the_file_of_one(runs, texts, tmp_path, capsys):
    argv = ["predict", "--model", str(runs / "mixer"), "--input", str(texts), "--batch-size", "1"]
    assert outcome(capsys, *argv, "--output", tmp_path / "one.csv")[0] == 0
    ranks = start_ranks(main, [*argv, "--output", str(tmp_path / "two.csv")], world_size=2, folder=tmp_path)
    for process in ranks:
        assert process.wait() == 0, process.output
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_the_weights_of_train_py_code_a_table(runs, texts, tmp_path, capsys):
    argv = ["predict", "--model", runs / "flat", "--input", texts, "--output", tmp_path / "out.csv"]
    code, _, err = outcome(capsys, *argv, "--threshold", "0")
    assert code == 0, err
    assert {row["method"] for row in read(tmp_path / "out.csv")} == {"flat", ""}
    code, _, err = outcome(capsys, *argv, "--overwrite", "--method", "greedy")
    assert code == 2
    assert "the model has a flat head alone, which cannot answer by the method greedy: choose flat (--method)" in err


def test_evaluate_refuses_the_languages_that_predict_refuses(runs, tmp_path, capsys):
    argv = ["evaluate", "--model", runs / "own", "--input", runs / "own.csv", "--target-cols", "code"]
    code, _, err = outcome(capsys, *argv, "--output", tmp_path / "judged", "--language", "xx")
    assert code == 2
    assert f"--language of {runs / 'own.csv'} names languages that the model does not know: 'xx' (40 rows)" in err


def test_a_column_of_languages_that_is_not_used_is_told(runs, texts, tmp_path, capsys):
    argv = ["predict", "--model", runs / "own", "--input", texts, "--output", tmp_path / "out.csv", "--overwrite"]
    for flags, told in (([], True), (["--language-col", "lang"], False), (["--language", "da"], False)):
        code, out, err = outcome(capsys, *argv, *flags)
        assert code == 0, err
        assert ("Column 'lang' of " in out) == told
    argv = ["evaluate", "--model", runs / "own", "--input", runs / "own.csv", "--target-cols", "code"]
    out = outcome(capsys, *argv, "--output", tmp_path / "judged", "--no-thresholds")[1]
    assert "is not used: all rows are taken as language 'unk'. --language-col lang reads it" in out


BAD = [
    (["--input", "{missing}.csv"], "--input: There is no file"),
    (["--input-col", "occ"], "has no column 'occ' (did you mean 'occ1'?)"),
    (["--language-col", "language"], "has no column 'language'"),
    (["--keep-cols", "id"], "has no column 'id'"),
    (["--threshold", "2"], "--threshold is 2.0; it must lie in 0..1"),
    (["--language", "xx"], "--language of {texts} names languages that the model does not know: 'xx' (5 rows)"),
    (["--output", "{texts}"], "texts.csv is there already: --overwrite replaces it"),
    (["--output", "{texts}", "--overwrite"], "texts.csv is the input itself: give another file"),
    (["--output", "{empty}/../texts.csv", "--overwrite"], "texts.csv is the input itself: give another file"),
    (["--review", "{texts}", "--overwrite"], "--review {texts} is the input itself: give another file"),
    (["--output", "{missing}.csv", "--review", "{missing}.csv"], "--review {missing}.csv is the output itself"),
    (["--output", "{missing}.csv.gz"], "--output {missing}.csv.gz: what is written is not compressed: give it the"),
    (["--model", "{missing}"], "there is no such checkpoint"),
    (["--model", "{empty}"], "holds no model: neither checkpoints of a run nor an exported model"),
    (["--model", "{texts}"], "the file is damaged"),
    (["--descriptions", "{texts}"], "has no columns 'system_code', 'desc'"),
    (["--top-k", "2", "--method", "flat"], "alternatives (--top-k) are for the method greedy"),
    (["--output", "{missing}.xlsx"], "missing.xlsx: what is written is CSV or Parquet, not .xlsx: give it the ending"),
    (["--review", "{missing}.ods"], "--review {missing}.ods: what is written is CSV or Parquet, not .ods"),
    (["--model", "{missing}", "--input-col", "occ"], "2 problems:"),
    (["--for-spreadsheets", "--output", "{missing}.parquet"], "--for-spreadsheets is for CSV"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_bad_usage_ends_with_one_message_and_no_output(runs, texts, tmp_path, capsys, flags, message):
    (tmp_path / "empty").mkdir()
    names = {"missing": tmp_path / "missing", "texts": texts, "empty": tmp_path / "empty"}
    argv = ["predict", "--model", runs / "mixer", "--input", texts, "--output", tmp_path / "out.csv"]
    code, _, err = outcome(capsys, *argv, *(flag.format(**names) for flag in flags))
    assert code == 2
    assert message.format(**names) in err
    assert "Traceback" not in err
    assert not (tmp_path / "out.csv").exists()
    assert texts.read_text().startswith("occ1,lang")


def test_columns_that_the_output_needs_are_told_apart(runs, tmp_path, capsys):
    path = tmp_path / "in.csv"
    path.write_text("occ1,code_1\nsmith,1\n")
    argv = ["predict", "--model", runs / "mixer", "--input", path, "--output", tmp_path / "out.csv"]
    code, _, err = outcome(capsys, *argv)
    assert code == 2
    assert "has a column 'code_1', which the output needs for itself" in err
    assert outcome(capsys, *argv, "--keep-cols", "occ1")[0] == 0
    assert list(read(tmp_path / "out.csv")[0])[:2] == ["occ1", "code_1"]


def test_a_column_that_is_kept_twice_comes_out_once(runs, texts, tmp_path, capsys):
    argv = ["predict", "--model", runs / "mixer", "--input", texts, "--output", tmp_path / "out.csv"]
    assert outcome(capsys, *argv, "--keep-cols", "lang", "occ1", "lang")[0] == 0
    rows = read(tmp_path / "out.csv")
    assert list(rows[0])[:3] == ["lang", "occ1", "code_1"]
    assert rows[0]["method"] == "greedy", "every value stands below its name"


def test_a_head_that_has_learnt_nothing_is_said_so(tmp_path, tiny_canine_config, capsys):
    """Whatever the threshold: it is the head's fault, or not, and not that of who asks for sure codes alone."""
    texts = [f"{i} text {i * i}" for i in range(60)]
    path = tmp_path / "in.csv"
    path.write_text("\n".join(["occ1", *texts]) + "\n")
    state = save_checkpoint(tmp_path / "texts.bin", "mixer", tiny_canine_config).state_dict()
    entries = torch.load(tmp_path / "texts.bin", weights_only=True)
    asked = OccCANINE(tmp_path / "texts.bin", hf=False, verbose=False)(texts, what="embeddings")
    mean = torch.tensor(asked.drop(columns="occ1").to_numpy(dtype=np.float32)).mean(dim=0)
    weight = state["linear_decoder.weight"]
    # What all texts have in common decides nothing, or everything.
    heads = {"texts": {"linear_decoder.bias": -weight @ mean}, "one": {"linear_decoder.weight": weight * 0}}
    for name, head in heads.items():
        torch.save({**entries, "model": {**state, **head}}, tmp_path / f"{name}.bin")
    for name, learnt in (("texts", True), ("one", False)):
        argv = ["predict", "--model", tmp_path / f"{name}.bin", "--input", path, "--method", "flat"]
        for threshold in ("0", "1"):
            output = tmp_path / f"{name}-{threshold}.csv"
            code, out, err = outcome(capsys, *argv, "--output", output, "--threshold", threshold)
            assert code == 0, err
            assert ("60 rows have a text and no code" in out) == (threshold == "1")
            said = re.search(r"100% of the distinct texts get one and the same answer, \S+: this head has learnt", out)
            assert (said is None) == learnt, out
            assert ("use --method greedy" in out) != learnt


def labelled(runs):
    return ["--input", runs / "own.csv", "--target-cols", "code", "--language-col", "lang"]


def test_an_evaluation_counts_as_a_plain_loop_does(runs, tmp_path, capsys):
    argv = ["evaluate", "--model", runs / "own", *labelled(runs), "--output", tmp_path / "judged", "--no-thresholds"]
    code, out, err = outcome(capsys, *argv, "--training-data", runs / "own" / "data_train.csv")
    assert code == 0, err
    found = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    argv = ["predict", "--model", runs / "own", "--input", runs / "own.csv", "--language-col", "lang"]
    assert outcome(capsys, *argv, "--output", tmp_path / "coded.csv")[0] == 0
    rows = read(tmp_path / "coded.csv")
    right = [row["code"] == row["code_1"] for row in rows]
    assert found["rows"] == 40
    assert found["exact_set_acc"] == pytest.approx(100 * np.mean(right))
    for language in ("en", "da"):
        own = [r for r, row in zip(right, rows) if row["lang"] == language]
        assert found["by"]["language"][language]["exact_set_acc"] == pytest.approx(100 * np.mean(own))
    assert found["by"]["codes"].keys() == {"1"}
    assert "leading_digits" not in found["by"], "codes with letters are no hierarchy of digits"
    assert sum(figures["rows"] for figures in found["by"]["in_training"].values()) == 40
    assert sum(line["rows"] for line in found["reliability"]) == 40
    shown = [line.split() for line in out.splitlines()[1:]]
    assert shown[0] == ["rows", "exact", "sets", "precision", "recall", "F1"]
    figures = [found, found["by"]["language"]["da"]]
    assert shown[1:3] == [
        [*name.split(), str(f["rows"]), *(part for key in FIGURES for part in (f"{f[key]:.1f}", "%"))]
        for name, f in zip(("all rows", "language da"), figures)
    ]
    code, _, err = outcome(
        capsys, *argv[:0], "evaluate", "--model", runs / "own", *labelled(runs), "--output", tmp_path / "judged"
    )
    assert code == 2
    assert "evaluation.json is there already: --overwrite replaces it" in err


@pytest.mark.parametrize("method", ["flat", "full"])
def test_the_best_codes_are_counted_beyond_those_that_a_text_may_have(runs, tmp_path, capsys, method):
    model = OccCANINE(runs / "own", hf=False, verbose=False)
    rows = read(runs / "own.csv")
    scores = model([row["occ1"] for row in rows], [row["lang"] for row in rows], what="probs", prediction_type=method)
    true = np.array([model.codes_list.index(row["code"]) for row in rows])
    rank = (scores > scores[np.arange(len(rows)), true][:, None]).sum(axis=1)
    shares = []
    for k in (1, 2, 9):
        argv = ["evaluate", "--model", runs / "own", *labelled(runs), "--output", tmp_path / f"{k}", "--no-thresholds"]
        code, _, err = outcome(capsys, *argv, "--method", method, "--top-k", k)
        assert code == 0, err
        found = json.loads((tmp_path / f"{k}" / "evaluation.json").read_text())
        assert found.pop("top_k") == {"k": k, "all_codes_found": pytest.approx(100 * np.mean(rank < k))}
        shares.append(found)
    assert np.mean(rank < 1) < np.mean(rank < 2) < 1, "the numbers differ"
    assert shares[0] == shares[1] == shares[2], "a text has one code at most, whatever is counted"


def test_true_codes_that_the_model_does_not_have_are_told(runs, tmp_path, capsys):
    rows = read(runs / "own.csv")
    path = tmp_path / "eaten.csv"
    path.write_text("text,code\n" + "".join(f"{row['occ1']},{row['code'].lstrip('0')}\n" for row in rows))
    argv = ["evaluate", "--model", runs / "own", "--input", path, "--input-col", "text", "--target-cols", "code"]
    argv += ["--training-data", path, runs / "own" / "data_train.csv", "--output", tmp_path / "judged"]
    code, out, err = outcome(capsys, *argv, "--no-thresholds")
    assert code == 0, err
    meant = min(row["code"].lstrip("0") for row in rows)
    says = f"Warning: 3 true codes, in 40 rows, are none of the model's codes, such as '{meant}' (it has '0{meant}'"
    assert says in out
    assert "text seen in training" in out
    # As --for-spreadsheets writes them.
    path.write_text("text,code\n" + "".join(f'{row["occ1"]},"=""{row["code"]}"""\n' for row in rows))
    code, out, err = outcome(capsys, *argv, "--no-thresholds", "--overwrite")
    assert code == 0, err
    assert "Warning" not in out


def test_class_indices_of_prepared_files_are_codes(runs, tmp_path, capsys):
    argv = ["evaluate", "--model", runs / "mixer", "--input", runs / "rows.csv", "--language-col", "lang"]
    code, _, err = outcome(capsys, *argv, "--output", tmp_path / "judged", "--no-thresholds", "--method", "full")
    assert code == 0, err
    found = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    assert found["rows"] == 60
    assert list(found["by"]["leading_digits"]) == ["1", "2", "3", "4", "5"]
    assert found["by"]["leading_digits"]["5"]["f1"] == found["f1"]


def test_thresholds_of_an_evaluation_are_used_by_predictions(runs, tmp_path, capsys):
    argv = ["export", "--model", runs / "own", "--output", tmp_path / "model"]
    assert outcome(capsys, *argv)[0] == 0
    argv = ["evaluate", "--model", tmp_path / "model", *labelled(runs), "--method", "flat"]
    code, out, err = outcome(capsys, *argv, "--output", tmp_path / "judged")
    assert code == 0, err
    written = read(tmp_path / "model" / "thresholds.csv")
    assert [row["language"] for row in written] == ["all"], "20 rows of a language are too few"
    assert "which histocc predict and evaluate use from now on" in out
    assert "  all rows, with the new thresholds " in out
    again = outcome(capsys, *argv, "--output", tmp_path / "judged", "--overwrite", "--no-thresholds")[1]
    sure = f"by the method flat, without codes that are not sure enough for {tmp_path / 'model' / 'thresholds.csv'}:"
    assert (sure in out, sure in again) == (False, True)
    (line,) = [line for line in out.splitlines() if line.startswith("  all rows, with the new thresholds")]
    assert line.split()[6:] == next(line for line in again.splitlines() if "all rows" in line).split()[2:]
    assert (
        next(line for line in out.splitlines() if line.startswith("  all rows  ")).split()[2:]
        == next(line for line in again.splitlines() if line.startswith("  all rows, without thresholds.csv")).split()[
            4:
        ]
    )
    argv = ["predict", "--model", tmp_path / "model", "--input", runs / "own.csv", "--method", "flat"]
    (tmp_path / "model" / "thresholds.csv").write_text("method,language,threshold,f1,rows\nflat,all,1.0,1,40\n")
    code, out, _ = outcome(capsys, *argv, "--output", tmp_path / "none.csv")
    assert code == 0
    file = tmp_path / "model" / "thresholds.csv"
    assert f"40 rows have a text and no code: no code was sure enough for {file} (--threshold 0 leaves out none)" in out
    assert {row["code_1"] for row in read(tmp_path / "none.csv")} == {""}
    of_other_weights = "method,language,threshold,f1,rows,weights\nflat,all,1.0,1,40,0123456789ab\n"
    (tmp_path / "model" / "thresholds.csv").write_text(of_other_weights)
    code, out, _ = outcome(capsys, *argv, "--output", tmp_path / "none.csv", "--overwrite")
    assert f"Warning: {file} is not used: its thresholds were found with other weights than these." in out
    with pytest.warns(UserWarning, match="found with other weights"):
        OccCANINE(str(tmp_path / "model"), hf=False, verbose=False)(["text 1"], behavior="fast")
    argv = [
        "evaluate",
        "--model",
        tmp_path / "model",
        *labelled(runs),
        "--method",
        "flat",
        "--output",
        tmp_path / "judged",
    ]
    code, out, _ = outcome(capsys, *argv, "--overwrite")
    assert "Warning: " in out
    assert "without thresholds.csv" not in out
    argv = ["predict", "--model", tmp_path / "model", "--input", runs / "own.csv", "--method", "flat"]
    (tmp_path / "model" / "thresholds.csv").write_text("nonsense\n1\n")
    code, _, err = outcome(capsys, *argv, "--output", tmp_path / "bad.csv")
    assert code == 2
    assert "thresholds.csv is no table with the columns method, language, threshold, f1, rows" in err


def test_thresholds_that_cannot_be_kept_cost_no_figure(runs, tmp_path, capsys):
    assert outcome(capsys, "export", "--model", runs / "own", "--output", tmp_path / "model")[0] == 0
    argv = ["evaluate", "--model", tmp_path / "model", *labelled(runs), "--output", tmp_path / "judged", "--overwrite"]
    file = tmp_path / "model" / "thresholds.csv"
    for method, without in (("flat", "those that are no surer than 0.5"), ("greedy", "none either")):
        code, out, err = outcome(capsys, *argv, "--method", method)
        assert code == 0, err
        assert f"With --threshold 0 no code is left out; without the file, {without}" in out
    file.write_text("nonsense\n1\n")
    argv += ["--threshold", "0.5"]  # with which nobody reads the file
    code, out, err = outcome(capsys, *argv)
    assert code == 0, err
    assert "Warning: the thresholds with the best F1 are not kept. " in out
    assert "thresholds.csv is no table with the columns method, language, threshold, f1, rows" in out
    assert file.read_text() == "nonsense\n1\n"
    file.unlink()
    file.mkdir()
    code, out, err = outcome(capsys, *argv)
    assert code == 0, err
    assert "are not kept" in out
    assert (tmp_path / "judged" / "evaluation.json").is_file()


def test_an_exported_model_needs_neither_run_nor_data_nor_network(runs, texts, tmp_path, capsys):
    code, _, err = outcome(capsys, "export", "--model", runs / "mixer", "--output", tmp_path / "model")
    assert code == 0, err
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"model.safetensors", "config.json", "key.csv", "README.md"}
    card, own = ((folder / "README.md").read_text() for folder in (tmp_path / "model", runs / "mixer"))
    how_good = [text[text.index("| head |") : text.index("How good it is on other data")] for text in (card, own)]
    assert how_good[0] == how_good[1]
    assert "training rows: " in card
    assert "- `model.safetensors`: the weights" in card
    assert "best.bin" not in card
    assert "--model FOLDER" in card
    again = Seq2SeqMixerOccCANINE_hub.from_pretrained(tmp_path / "model")
    weights = torch.load(runs / "mixer" / "best.bin", weights_only=True)["model"]
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    outputs = []
    for model in (runs / "mixer", tmp_path / "model"):
        argv = ["predict", "--model", model, "--input", texts, "--output", tmp_path / f"{model.name}.csv"]
        assert outcome(capsys, *argv)[0] == 0
        outputs.append((tmp_path / f"{model.name}.csv").read_bytes())
    assert outputs[0] == outputs[1]
    code, _, err = outcome(capsys, "export", "--model", runs / "mixer", "--output", tmp_path / "model")
    assert code == 2
    assert "is a folder with something in it" in err


def test_the_card_of_exported_weights_is_theirs(runs, tmp_path, capsys):
    """Of a run of train.py the best weights are those of another step than the newest."""
    run = tmp_path / "run"
    shutil.copytree(runs / "flat", run)
    last = torch.load(run / "last.bin", weights_only=True)["step"]
    lines = (run / "logs.csv").read_text().splitlines()
    first = dict(zip(lines[0].split(","), lines[1].split(","))) | {"step": "1", "val_loss": "0", "val_acc": "1"}
    (run / "logs.csv").write_text("\n".join([lines[0], ",".join(first.values()), *lines[1:]]) + "\n")
    shutil.copyfile(run / "metrics" / f"{last}.json", run / "metrics" / "1.json")
    for name, step in (("", 1), ("m.bin", 1), ("last.bin", last), (f"{last}", last), ("Checkpointm.bin", last)):
        target = tmp_path / f"model of {name}"
        code, _, err = outcome(capsys, "export", "--model", run / name, "--output", target)
        assert code == 0, err
        card = (target / "README.md").read_text()
        assert f"These are the weights of step {step}." in card
        assert ("rows set aside for testing" in card) == (step == 1), "the best weights were tested"
        modes = {path.stat().st_mode for path in target.iterdir()}
        assert len(modes) == 1, "whoever may read the card may use the weights"


def test_a_corrected_review_judges_the_source_and_is_trained_on(runs, tmp_path, capsys):
    argv = ["predict", "--model", runs / "own", "--input", runs / "own.csv", "--language-col", "lang"]
    flags = ["--output", tmp_path / "coded.csv", "--review", tmp_path / "review.csv", "--review-rows", 20]
    code, out, err = outcome(capsys, *argv, *flags)
    assert code == 0, err
    rows = read(tmp_path / "review.csv")
    shy = [*argv, "--output", tmp_path / "shy.csv", "--review", tmp_path / "shy-review.csv", "--review-rows", 20]
    code, out, err = outcome(capsys, *shy, "--threshold", 1, "--for-spreadsheets")
    assert code == 0, err
    assert {row["code_1"] for row in read(tmp_path / "shy.csv")} == {""}
    assert [row["code_1"] for row in read(tmp_path / "shy-review.csv")] == [
        f'="{row["code_1"]}"' if row["code_1"] else "" for row in rows
    ], "what the model thinks of stands in the table, though it is not sure"
    truth = read(runs / "own.csv")
    for i, row in enumerate(rows):
        row["code_1"] = truth[int(row["row"]) - 2]["code"]
        # R writes NA and FALSE where nobody has ticked.
        row["checked"] = "x" if i % 3 else ("", "NA", "FALSE")[i // 3 % 3]
    with (tmp_path / "review.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    ticked = [row for row in rows if row["checked"] == "x"]

    argv = ["evaluate", "--model", runs / "own", "--input", tmp_path / "review.csv", "--target-cols", "code_1"]
    code, out, err = outcome(capsys, *argv, "--output", tmp_path / "judged", "--no-thresholds")
    assert code == 0, err
    found = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    assert found["rows"] == len(ticked)
    source = found["accuracy_of_the_source"]
    assert source["rows"] == sum(row["sample"] == "random" for row in ticked)
    assert source["from"] <= source["right"] <= source["to"]
    assert f"not judged: {len(rows) - len(ticked)} rows not ticked" in out

    argv = [
        "--dataset",
        tmp_path / "review.csv",
        "--target-cols",
        "code_1",
        "--block-size",
        3,
        "--language-col",
        "lang",
    ]
    argv += ["--save-path", tmp_path / "again", "--prepare-only", "--share-val", 0.3]
    assert finetune.main([str(a) for a in argv]) == 0
    assert f"{len(rows) - len(ticked)} rows of a review that nobody ticked" in capsys.readouterr().out
    prepared = read(tmp_path / "again" / "data_train.csv") + read(tmp_path / "again" / "data_val.csv")
    assert sorted(row["occ1"] for row in prepared) == sorted(row["occ1"] for row in ticked)


def test_an_interrupt_while_libraries_are_read_shows_no_traceback(monkeypatch):
    """As in a process of its own: until the command can answer Ctrl-C, the system does."""
    handlers = []

    def loaded(name):
        handlers.append(signal.getsignal(signal.SIGINT))
        return types.SimpleNamespace(main=lambda arguments: 0)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(sys, "argv", ["histocc", "predict"])
        monkeypatch.setattr("histocc.__main__.importlib.import_module", loaded)
        assert main() == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.SIG_DFL]


def test_the_commands_are_listed_and_a_wrong_one_is_named(capsys):
    code, out, _ = outcome(capsys, "--help")
    assert code == 0
    assert all(name in out for name in ("predict", "evaluate", "export"))
    code, _, err = outcome(capsys, "predikt")
    assert code == 2
    assert "there is no command 'predikt'" in err
    assert outcome(capsys, "--version")[1].startswith("histocc ")
