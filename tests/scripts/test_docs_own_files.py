"""Commands and programs of the documentation that are about the reader's own files, run as they stand there.

Small files take the place of the reader's, a tiny encoder that of `google/canine-s`, and each run is a few steps long.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from histocc import DATASETS
from histocc.datasets import sample_paths
from tests.hub_cache import cached_repository, use_cache
from tests.running import ENVIRONMENT, PATIENCE_SECONDS, free_port, small_encoder
from tests.scripts.documented import DOCS, PAGES, ROOT, blocks, commands, lines, name_of, run

PREPARED = ("A.csv", "B.csv", "C.csv", "train.csv", "val.csv", "TRAIN.csv", "VAL.csv")
TABLES = ("table.csv", "census.csv", "test.csv", "TABLE.csv")
FOLDERS = ("../Data/Training_data", "Training_data", "FOLDER", "models/canine-s")
# Pages that another test runs from the first to the last line, but for what is done with the reader's files.
EXAMPLES = ("quickstart.md", "predict.md", "finetune.md", "troubleshooting.md")


def is_about_own_files(words: list[str]) -> bool:
    return any(word in (*PREPARED, *TABLES, *FOLDERS) for word in words)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of somebody who has all files that the pages name."""
    home = tmp_path / "home" / "work"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    rows = pd.read_csv(sample_paths()[0], nrows=24)
    codes = DATASETS["keys"]().set_index("code")["hisco"].map("{:05d}".format)
    rows["code_1"] = rows["code1"].map(codes)
    rows["code_2"] = None
    rows["RowID"] = range(len(rows))
    for name in PREPARED:
        rows.to_csv(name, index=False)
    for folder in (*FOLDERS[:3], "histocc"):
        Path(folder).mkdir(parents=True)
    for folder in FOLDERS[:3]:
        rows.to_csv(f"{folder}/rows.csv", index=False)
    rows["code"] = rows["code_a"] = rows["hisco"] = rows["code_1"]
    rows["code_b"] = None
    rows["occupation"] = rows["occ1"]
    columns = ["occ1", "occupation", "lang", "code", "code_a", "code_b", "hisco"]
    for name in TABLES:
        rows[columns].to_csv(name, index=False)
    small_encoder(Path("models/canine-s"), positions=128, rows=128)
    hub = tmp_path / "cache"
    shutil.copytree("models/canine-s", cached_repository(hub, "google/canine-s"), dirs_exist_ok=True)
    use_cache(monkeypatch, hub)
    return home


def test_each_command_is_run():
    for page in PAGES:
        for words in commands(page):
            assert is_about_own_files(words) or page.name in EXAMPLES or words[1:] == ["--demo"], words


@pytest.mark.parametrize("page", [p for p in PAGES if any(map(is_about_own_files, commands(p)))], ids=name_of)
def test_commands(page, home, capsys):
    for words in filter(is_about_own_files, commands(page)):
        assert run(words, "--max-steps", "2") == 0, (words, capsys.readouterr().err)


def test_programs(home):
    for text in blocks(ROOT / "README.md", "python"):
        exec(compile(text, "README.md", "exec"), {})
    names = {}
    for text in blocks(DOCS / "data-format.md", "python"):
        exec(compile(text, "data-format.md", "exec"), names)
    assert names["table"]["code1"].equals(pd.read_csv("train.csv")["code1"])
    few = ["--max-steps", "1", "--batch-size", "4", "--encoder", "models/canine-s"]
    prepared = ["--train-data", "prepared.csv", "--val-data", "C.csv", "--target-cols", "code1"]
    assert run(["train_mixer.py", "--save-dir", "runs/prepared", *prepared], *few) == 0
    own = [
        "--train-data",
        "train.csv",
        "--val-data",
        "val.csv",
        "--formatter",
        "gpf",
        "--target-cols",
        "code_1",
        "code_2",
    ]
    assert run(["train_mixer.py", "--save-dir", "runs/own", *own, "--key", "key.csv"], *few) == 0
    assert Path("runs/own/key.csv").read_text() == Path("key.csv").read_text()


def test_programs_that_train_and_code(home, capsys):
    names = {}
    for text in blocks(DOCS / "python.md", "python"):
        exec(compile(text, "python.md", "exec"), names)
    assert len(names["own_data"]) == 24
    out = capsys.readouterr().out
    assert "validation loss" in out
    assert "128 hisco 1919" in out
    assert run(["histocc", "predict", "--model", "runs/py", "--input", "TABLE.csv", "--output", "CODED.csv"]) == 0


def test_programs_with_the_flat_classifier(home):
    assert (
        run(
            ["train.py", "--train-data", "TRAIN.csv", "--save-dir", "Model"], "--model-name", "NAME", "--max-steps", "1"
        )
        == 0
    )
    *loading, training = blocks(DOCS / "train.md", "python")
    names = {}
    for text in loading:
        exec(compile(text, "train.md", "exec"), names)
    model = names["model"]
    optimizer = torch.optim.AdamW(model.parameters())
    names |= {"loss_fn": nn.BCEWithLogitsLoss(), "optimizer": optimizer, "device": torch.device("cpu")}
    names["scheduler"] = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    exec(compile(training, "train.md", "exec"), names)
    assert names["history"]["epoch"] == list(range(1, 11))


WITH_TORCHRUN = [page for page in PAGES if re.search("^torchrun ", "\n".join(lines(page)), flags=re.MULTILINE)]


def launch(words: list[str], home: Path, name: str, **environment: str) -> subprocess.Popen:
    """Start a program in `home`; what it shows goes to the file `name`."""
    for script in ("train_mixer.py", "train.py"):
        (home / script).exists() or (home / script).symlink_to(ROOT / script)
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT), **environment}
    with (home / name).open("w") as output:
        return subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, cwd=home, env=environment)


@pytest.mark.kills
@pytest.mark.parametrize("page", WITH_TORCHRUN, ids=name_of)
def test_torchrun(page, home):
    """One machine, two processes in place of four; two machines, which both are this one."""
    port = str(free_port())
    machines = []
    for line in filter(lambda line: line.startswith("torchrun "), lines(page)):
        line = re.sub(r"(--nproc[-_]per[-_]node[= ])4", r"\g<1>2", line)
        line = line.replace("node01", "127.0.0.1").replace("29500", port)
        line = line.replace("...", "--save-dir runs/b --train-data train.csv --val-data val.csv")
        words = [sys.executable, "-m", "torch.distributed.run", *line.split()[1:], "--max-steps", "2"]
        process = launch(words, home, f"shown-{len(machines)}.txt")
        machines.append(process)
        if "--nnodes" not in line:
            assert process.wait(2 * PATIENCE_SECONDS) == 0, (home / f"shown-{len(machines) - 1}.txt").read_text()
    for number, process in enumerate(machines):
        assert process.wait(2 * PATIENCE_SECONDS) == 0, (home / f"shown-{number}.txt").read_text()


SRUN = """#!/bin/bash
# As Slurm's srun: a process for each task, signals handed on, the worst exit code.
[ "$1" = --cpus-per-task=8 ] || exit 9
while [[ $1 == --* ]]; do shift; done
pids=()
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
    pids+=($!)
done
trap 'kill -USR1 "${pids[@]}"' USR1
worst=0
for pid in "${pids[@]}"; do
    wait "$pid"; code=$?
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; code=$?; done
    ((code > worst)) && worst=$code
done
exit $worst
"""
SCONTROL = """#!/bin/bash
case $1 in
    show) echo 127.0.0.1 ;;
    *) echo "$@" >> requeued ;;
esac
"""


@pytest.mark.kills
def test_the_slurm_script_saves_before_the_time_limit_and_goes_on(home):
    """The guide's script under stand-ins for `srun` and `scontrol`."""
    (text,) = (text for text in blocks(DOCS / "multi-gpu.md", "bash") if "#SBATCH" in text)
    assert text.count("29500") == 1
    text = text.replace("29500", str(free_port())).replace(
        "--keep-checkpoints 3", "--keep-checkpoints 3 --max-steps 30"
    )
    Path("job.sh").write_text(text)
    Path("bin").mkdir()
    for name, program in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = Path("bin", name)
        path.write_text(program)
        path.chmod(0o755)
    slurm = {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_JOB_NODELIST": "node01",
    }
    slurm["PATH"] = f"{home}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"

    first = launch(["bash", "job.sh"], home, "first.txt", **slurm)
    shown = Path("first.txt")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not re.search(r"step \d+ of 30", shown.read_text()):
        assert time.monotonic() < deadline, shown.read_text()
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(2 * PATIENCE_SECONDS) == 0, shown.read_text()
    assert Path("requeued").read_text() == "requeue 7\n"

    second = launch(["bash", "job.sh"], home, "second.txt", **slurm)
    assert second.wait(2 * PATIENCE_SECONDS) == 0, Path("second.txt").read_text()
    start = re.search(r"start +step (\d+), from", Path("second.txt").read_text())
    assert start, Path("second.txt").read_text()
    assert 0 < int(start[1]) < 30
    assert "Trained to step 30" in Path("second.txt").read_text()
    assert Path("requeued").read_text() == "requeue 7\n"
