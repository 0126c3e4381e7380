"""Every name of the original, with its parameters in order and their defaults, or a reason in the documentation.

`golden/api.json` lists the names: those of the original, those that came or changed with OCCPAST, and those of the
original's later prediction. Parameters of ours may stand behind. What is not here is listed, with a reason, in the
table of `docs/REPRODUCE_ORIGINAL.md` under the heading `HEADING`.
"""

import ast
import importlib
import inspect
import json
import re
from functools import lru_cache
from pathlib import Path

import pytest

from histocc.attacker import AttackerClass
from histocc.formatter import construct_general_purpose_formatter, hisco_blocky5, occ1950_blocky2
from histocc.loss import BlockOrderInvariantLoss, LossMixer, OrderInvariantSeq2SeqCrossEntropy, Seq2SeqCrossEntropy
from histocc.model_assets import CANINEOccupationClassifier, Seq2SeqMixerOccCANINE, Seq2SeqOccCANINE
from histocc.prediction_assets import OccCANINE
from histocc.utils import Averager

HEADING = "## Names that are not here"
DOCUMENT = Path(__file__).parents[2] / "docs" / "REPRODUCE_ORIGINAL.md"
API = json.loads((Path(__file__).parents[1] / "golden" / "api.json").read_text(encoding="utf-8"))
ENTRIES = [
    (f"{module}.{name}", entry)
    for part in API.values()
    for module, names in part.items()
    for name, entry in names.items()
]
MODULES = sorted({module for part in API.values() for module in part})


@pytest.fixture
def instances(make_dataset, rows_csv, tiny_canine_config):
    """An object of each class, for its attributes."""
    block = {"pad_idx": 1}
    losses = BlockOrderInvariantLoss(**block), OrderInvariantSeq2SeqCrossEntropy(**block), Seq2SeqCrossEntropy(**block)
    classifier = CANINEOccupationClassifier(3, encoder=tiny_canine_config)
    seq2seq = Seq2SeqOccCANINE("", [18] * 27, encoder=tiny_canine_config)
    mixer = Seq2SeqMixerOccCANINE("", [18] * 27, 3, encoder=tiny_canine_config)
    return {
        "histocc.formatter.general_purpose.BlockyFormatter": construct_general_purpose_formatter(3, ["code"]),
        "histocc.formatter.hisco.BlockyHISCOFormatter": hisco_blocky5(),
        "histocc.formatter.occ1950.BlockyOCC1950Formatter": occ1950_blocky2(),
        "histocc.layers.decoder.PositionalEncoding": seq2seq.decoder.positional_encoding,
        "histocc.layers.decoder.TokenEmbedding": seq2seq.decoder.token_emb,
        "histocc.layers.decoder.TransformerDecoder": seq2seq.decoder,
        "histocc.loss.mixer.LossMixer": LossMixer(losses[0], losses[2]),
        "histocc.loss.order_invariant.BlockOrderInvariantLoss": losses[0],
        "histocc.loss.order_invariant.OrderInvariantSeq2SeqCrossEntropy": losses[1],
        "histocc.loss.sequence_loss.Seq2SeqCrossEntropy": losses[2],
        "histocc.model_assets.CANINEOccupationClassifier": classifier,
        "histocc.model_assets.Seq2SeqOccCANINE": seq2seq,
        "histocc.model_assets.Seq2SeqMixerOccCANINE": mixer,
        "histocc.prediction_assets.OccCANINE": OccCANINE(
            hf=False, skip_load=True, model_type="mix", encoder=tiny_canine_config, verbose=False
        ),
        "histocc.utils.metrics.Averager": Averager(),
        "histocc.attacker.AttackerClass": AttackerClass(),
        "histocc.dataloader.OccDatasetMixerInMemMultipleFiles": make_dataset(rows_csv),
    }


@lru_cache
def reasons():
    """The names that the documentation gives reasons for, as `module.name` or `module.Class.method`."""
    section = DOCUMENT.read_text(encoding="utf-8").partition(HEADING)[2].partition("\n## ")[0]
    listed = set()
    for row in re.findall(r"^\| `(histocc[\w.]*)` \| (.+?) \| .+ \|$", section, flags=re.MULTILINE):
        listed |= {f"{row[0]}.{name}" for name in re.findall(r"`([\w.]+)`", row[1])}
    return listed


def parameters(signature):
    """Names and defaults of a signature as it is written."""
    arguments = ast.parse(f"def f{signature}: pass").body[0].args
    names = [argument.arg for argument in arguments.args]
    defaults = [eval(ast.unparse(node)) for node in arguments.defaults]
    missing = [inspect.Parameter.empty] * (len(names) - len(defaults))
    return list(zip(names, [*missing, *defaults])), arguments.vararg is not None or arguments.kwarg is not None


def differences(function, signature):
    """What keeps a call that fits a signature from fitting a function."""
    wanted, _ = parameters(signature)
    ours = list(inspect.signature(function).parameters.values())
    if len(ours) < len(wanted):
        yield f"has {[parameter.name for parameter in ours]}, not {[name for name, _ in wanted]}"
    for parameter, (name, default) in zip(ours, wanted):
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY):
            yield f"takes {name} by keyword alone"
        if parameter.name != name:
            yield f"calls {name} {parameter.name}"
        # What must be given there may have a default here.
        elif default is not inspect.Parameter.empty and parameter.default != default:
            yield f"has {name}={parameter.default!r}, not {default!r}"
    for parameter in ours[len(wanted) :]:
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is inspect.Parameter.empty and not variable:
            yield f"needs {parameter.name} too"


def faults(path, entry, instances):
    """What is not as in the original, as (name, what)."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        yield path, repr(error)
        return
    if isinstance(entry, str):
        if entry.startswith("("):
            yield from ((path, what) for what in differences(found, entry))
        return
    for method, signature in entry["methods"].items():
        if not hasattr(found, method):
            # What is computed there on demand may stand in the object here.
            if not hasattr(instances.get(path), method):
                yield f"{path}.{method}", "is missing"
        elif not isinstance(inspect.getattr_static(found, method), property):
            yield from ((f"{path}.{method}", what) for what in differences(getattr(found, method), signature))
    if entry["attributes"]:
        assert path in instances, f"{path} has attributes: put an object of it into the fixture `instances`"
        for attribute in entry["attributes"]:
            if not hasattr(instances[path], attribute):
                yield f"{path}.{attribute}", "is missing"


def all_faults(module, instances):
    named = [(path, entry) for path, entry in ENTRIES if path.rpartition(".")[0] == module]
    return [
        (name, what)
        for path, entry in named
        # A class that is not here is told once, and not with each of its methods.
        for name, what in (faults(path, entry, instances) if path not in reasons() else [])
        if name not in reasons()
    ]


@pytest.mark.parametrize("module", MODULES)
def test_names_and_parameters_are_those_of_the_original(module, instances):
    assert all_faults(module, instances) == []


@pytest.mark.parametrize("module", MODULES)
def test_reasons_are_given_for_nothing_that_is_the_same(module, instances):
    entries = {}
    for path, entry in ENTRIES:
        entries.setdefault(path, []).append(entry)
    for reason in sorted(reasons()):
        path = reason if reason in entries else reason.rpartition(".")[0]
        if path.rpartition(".")[0] != module:
            continue
        assert path in entries, f"the original has no {reason}"
        found = [name for entry in entries[path] for name, _ in faults(path, entry, instances)]
        assert any(name == reason or name.startswith(f"{reason}.") for name in found), f"{reason} is as in the original"


@pytest.mark.parametrize(
    ("function", "signature", "fault"),
    [
        (lambda a, b=1, *, c=2: 0, "(a, b=1)", None),
        (lambda a, b=1, **more: 0, "(a)", None),
        (lambda a=0, b=1: 0, "(a, b=1)", None),
        (lambda a, b=10**5: 0, "(a, b=10 ** 5)", None),
        (lambda b, a: 0, "(a, b)", "calls a b"),
        (lambda a, b=2: 0, "(a, b=1)", "has b=2, not 1"),
        (lambda a, b: 0, "(a, b=1)", "has b=<class 'inspect._empty'>, not 1"),
        (lambda a: 0, "(a, b=1)", "has ['a'], not ['a', 'b']"),
        (lambda a, *, b=1: 0, "(a, b=1)", "takes b by keyword alone"),
        (lambda a, b: 0, "(a)", "needs b too"),
    ],
)
def test_differences_are_seen(function, signature, fault):
    found = list(differences(function, signature))
    assert found == [] if fault is None else fault in found
