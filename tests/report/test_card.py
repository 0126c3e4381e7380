"""`README.md`: the card of a model; and what is noted of a run for it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from histocc.errors import UsageError
from histocc.files import atomic
from histocc.files.json_files import write_json
from histocc.report.callback import ReportCallback, draw
from histocc.report.card import MARK, model_card
from histocc.report.facts import RunFacts
from histocc.report.record import RunRecord
from histocc.training.loop import Evaluation


def test_the_card_says_what_how_and_how_good(facts, folder):
    draw(facts, folder)
    card = (folder / "README.md").read_text()
    titles = [line for line in card.splitlines() if line.startswith("#")]
    assert titles == [
        "# A model for occupational descriptions",
        *("## What it was trained on", "## How it was trained", "## How good it is", "## Use", "## Files", "## Cite"),
    ]
    for fact in (
        "hisco, 1,919 codes, up to 5 a text",
        "training files: `a.csv`",
        "training rows: 1,300",
        "en 1,000, da 300",
        facts.command,
        "`--batch-size` 64",
        "torch 2.13.0",
        "These are the weights of step 400",  # those of the least loss
        f"histocc predict --model {folder}",
        "arXiv:2402.13604",
    ):
        assert fact in card, fact
    tables = [line for line in card.splitlines() if line.startswith("| ")]
    assert tables[0] == "| head | rows | exact sets | precision | recall | F1 |"
    # What a user gets comes first.
    assert [line.split(" | ")[:3] for line in tables[1:4]] == [
        ["| decoded", "10", "40.0"],
        ["| teacher-forced", "10", "60.0"],
        ["| flat head", "10", "0.0"],
    ]
    assert "| not seen in training | 6 | 21.5 | 50.0 | 25.0 | 33.2 |" in tables
    assert "| 2 | 3 | 12.5 | – | 25.0 | 33.2 |" in tables
    files = card[card.index("## Files") : card.index("## Cite")]
    for name in ("best.bin", "last.bin", "<step>.bin", "README.md", "report.html", "logs.csv", "metrics/<step>.json"):
        assert f"- `{name}`: " in files
    assert "- `key.csv`: " in files
    assert "notes of mine" not in files


def test_the_card_says_whether_all_rows_were_decoded(facts, folder):
    details = RunRecord.read(folder).details(400)
    part = "`histocc predict` gives, on a random part of the validation rows. "
    assert part not in model_card(facts, details, set(), "FOLDER")
    details["heads"]["teacher_forced"]["rows"] = 11
    assert part in model_card(facts, details, set(), "FOLDER")


def test_what_comes_from_data_is_no_markup(facts):
    hostile = "a|b\n# c `d` <script>"
    changed = dataclasses.replace(
        facts, languages={hostile: 3}, tables={"training": [hostile]}, command=f"x\n```{hostile}"
    )
    card = model_card(changed, None, set(), "FOLDER")
    assert "\n# c" not in card
    assert "a\\|b \\# c \\`d\\` \\<script\\> 3" in card
    assert card.count("```") == model_card(facts, None, set(), "FOLDER").count("```")


def test_a_folder_with_blanks_is_quoted_as_each_language_wants_it(facts):
    card = model_card(facts, None, set(), "my runs/a")
    assert "histocc predict --model 'my runs/a' --input" in card
    assert 'OccCANINE("my runs/a", hf=False)' in card


def test_a_card_of_ones_own_stays(facts, folder):
    draw(facts, folder)
    text = (folder / "README.md").read_text()
    own = text.replace(MARK, "") + "\nSee also ...\n"
    (folder / "README.md").write_text(own)
    draw(facts, folder)
    assert (folder / "README.md").read_text() == own


def test_what_cannot_be_drawn_is_a_warning(facts, folder, monkeypatch, capsys):
    monkeypatch.setattr(atomic, "_RETRY_SECONDS", 0.0)
    evaluation = Evaluation(800, {}, None)
    report = ReportCallback(facts, folder)
    (folder / "report.html").mkdir()
    report(evaluation)
    assert "report.html and README.md of step 800 could not be saved" in capsys.readouterr().err
    (folder / "report.html").rmdir()
    (folder / "metrics" / "800.json").write_text('{"heads": 5}')
    report(evaluation)
    assert "the entry heads holds 5" in capsys.readouterr().err
    (folder / "metrics" / "800.json").unlink()
    monkeypatch.setattr("histocc.report.callback.report_page", lambda *_: 1 / 0)
    report(evaluation)
    assert "report.html and README.md of step 800 could not be drawn: division by zero" in capsys.readouterr().err
    assert not (folder / "report.html").exists()


def test_rows_set_aside_speak_for_the_weights_of_their_step_alone(facts, folder):
    test = {"step": 800, "rows": 30, "test_loss": 0.1, "test_acc": 0.7}
    for step, told in ((800, True), (400, False)):
        write_json(folder / "test.json", test | {"step": step})
        draw(facts, folder)
        line = "Of 30 rows set aside for testing, which played no part in the run, 70.0 % get exactly their codes"
        for name in ("README.md", "report.html"):
            assert (line in (folder / name).read_text()) == told


def test_what_a_run_is_can_be_read_again(facts, folder):
    assert RunFacts.read(folder) is None
    facts.write(folder)
    assert RunFacts.read(folder) == facts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "the entry all of it holds"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "kind"),
        ({"codes": -1}, "the entry codes holds -1"),
        ({"tables": {"training": 5}}, "the entry tables"),
        ({"kind": "other"}, "the entry kind holds 'other'"),
    ],
)
def test_what_is_no_run_is_told(content, message, facts, folder):
    facts.write(folder)
    path = folder / "run.json"
    path.write_text(
        content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content), encoding="utf-8"
    )
    with pytest.raises(UsageError, match=message):
        RunFacts.read(folder)


def test_the_best_weights_are_those_of_the_least_loss_or_of_the_highest_accuracy(folder):
    record = RunRecord.read(folder)
    assert record.best_step() == 400
    assert "precision" not in record.rows[0]
    flat = [
        {"step": step, "val_acc": acc, "val_loss": loss} for step, acc, loss in ((1, 0.2, 1), (2, 0.3, 3), (3, 0.3, 2))
    ]
    assert RunRecord(folder, flat).best_step() == 3
