"""`OccCANINE` as people call it: any batch size and order, texts as they come, and arguments that make no sense."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import histocc.prediction_assets
from histocc import OccCANINE
from histocc.errors import UsageError
from histocc.prediction.occ_canine import OccCANINE as Defined
from histocc.prediction.transliteration import to_ascii
from tests.prediction.models import OWN_KEY, make, own_system, save_checkpoint

TEXTS = ["smith", "husmand og fisker", "weaver", "smith", "læge", "the smith of this parish, deceased", "smith", "a"]
LANGUAGES = ["en", "da", "en", "da", "da", "en", "en", "unk"]
# Float32; the width of a batch and its neighbours change the order of sums.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints: `mixer`, `seq2seq` and `flat`, in an own system."""
    from transformers import CanineConfig

    config = CanineConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_hash_functions=4,
        num_hash_buckets=64,
        max_position_embeddings=64,
    )
    folder = tmp_path_factory.mktemp("models")
    for kind in ("mixer", "seq2seq", "flat"):
        save_checkpoint(folder / kind / "last.bin", kind, config, own_system(), max_len=48, languages=["da", "en"])
    return folder


@pytest.fixture(scope="module")
def model(files):
    return OccCANINE(files / "mixer", verbose=False)


def equal(found, expected):
    pd.testing.assert_frame_equal(found, expected, check_exact=False, **CLOSE)


METHODS = [
    {"behavior": "fast", "threshold": 0.4},
    {"behavior": "fast", "what": "bin", "threshold": 0.4, "k_pred": 2},
    {"behavior": "fast", "what": "logits"},
    {"what": "embeddings"},
    {"behavior": "good"},
    {"order_invariant_conf": False},
    {"what": "bin"},
    {"prediction_type": "full", "threshold": 0.0, "k_pred": 3},
]


@pytest.mark.parametrize("arguments", METHODS, ids=str)
def test_batches_order_and_duplicates_do_not_matter(files, model, arguments):
    expected = model(TEXTS, LANGUAGES, **arguments)
    assert len(expected) == len(TEXTS)
    assert expected["occ1"].tolist() == [f"{lang}[SEP]{text}" for text, lang in zip(TEXTS, LANGUAGES)]
    for size in (1, 3):
        equal(OccCANINE(files / "mixer", batch_size=size, verbose=False)(TEXTS, LANGUAGES, **arguments), expected)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(TEXTS)), 2))
    shuffled = model([TEXTS[i] for i in order], [LANGUAGES[i] for i in order], **arguments)
    equal(shuffled, expected.iloc[order].reset_index(drop=True))
    for i in (1, 4):
        alone = model(TEXTS[i], LANGUAGES[i], **arguments)
        equal(alone, expected.iloc[[i]].reset_index(drop=True)[alone.columns])
    once = model(TEXTS, LANGUAGES, deduplicate=True, **arguments)
    assert once["lang"].tolist() == LANGUAGES
    equal(once.drop(columns="lang"), expected)


def test_answers_depend_on_the_text(model):
    """Or the test above would find nothing."""
    found = model(TEXTS, LANGUAGES, behavior="fast", what="logits").drop(columns="occ1").to_numpy()
    assert np.abs(found[0] - found[1]).max() > 1e-2
    codes = model(TEXTS, LANGUAGES, prediction_type="full", what="probs")
    assert np.abs(codes[0] / codes[1] - 1).max() > 0.1


def test_probabilities_are_those_of_the_logits(model):
    logits = model(TEXTS, LANGUAGES, behavior="fast", what="logits").drop(columns="occ1").to_numpy()
    probabilities = model(TEXTS, LANGUAGES, behavior="fast", what="probs")
    assert isinstance(probabilities, np.ndarray)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)
    best = model(TEXTS, LANGUAGES, behavior="fast", threshold=0, k_pred=9)
    assert [c for c in best.columns if c.startswith("own_")] == [f"own_{i}" for i in range(1, 5)], "four classes"
    np.testing.assert_allclose(best[[f"prob_{i}" for i in range(1, 5)]], -np.sort(-probabilities), rtol=1e-5)
    assert best["own_1"].tolist() == [list(OWN_KEY)[i] for i in probabilities.argmax(axis=1)]


def test_rounds_come_batch_by_batch(files, model):
    whole = model(TEXTS, LANGUAGES, prediction_type="greedy-topk", k_pred=3)
    assert whole["top-k-pos"].tolist() == [number for number in range(3) for _ in TEXTS]
    assert whole.columns[-2:].tolist() == ["top-k-pos", "conf"]
    small = OccCANINE(files / "mixer", batch_size=5, verbose=False)
    parts = small(TEXTS, LANGUAGES, prediction_type="greedy-topk", k_pred=3, deduplicate=True)
    assert parts["top-k-pos"].tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [0] * 3 + [1] * 3 + [2] * 3
    order = [number * 8 + row for rows in (range(5), range(5, 8)) for number in range(3) for row in rows]
    equal(parts.drop(columns="lang"), whole.iloc[order].reset_index(drop=True))
    assert parts["lang"].tolist() == [LANGUAGES[i % 8] for i in order]
    naive = model(TEXTS, LANGUAGES, order_invariant_conf=False)
    equal(whole.iloc[:8].drop(columns="top-k-pos")[naive.columns], naive)


@pytest.mark.parametrize("arguments", METHODS, ids=str)
def test_missing_and_blank_texts_get_no_code(model, arguments):
    texts = pd.Series(["smith", None, " ", float("nan"), pd.NA, "weaver", ""], index=list("abcdefg"))
    found = model(texts, "en", **arguments)
    present = [0, 5]
    equal(
        found.iloc[present].reset_index(drop=True)[model(["smith", "weaver"], "en", **arguments).columns],
        model(["smith", "weaver"], "en", **arguments),
    )
    rest = found.drop(index=present)
    what = arguments.get("what", "pred")
    if what == "bin":
        assert not rest.drop(columns="occ1").to_numpy().any()
    elif what == "pred":
        assert set(rest["own_1"]) == {"nan"}
        assert set(rest["desc_1"]) == {"No pred"}
        assert rest.filter(regex="^(prob|conf)").isna().all(axis=None)
    else:
        assert rest.drop(columns="occ1").isna().all(axis=None)
    everything = model([None, ""], "en", **arguments)
    assert len(everything) == 2
    assert len(model([], "en", **arguments)) == 0


def test_texts_and_languages_as_they_come(model):
    expected = model(["1890", "smith"], ["en", "unk"])
    for texts, languages in (
        ([1890, "smith"], ["en", None]),
        (("1890", "smith"), ("en", float("nan"))),
        (np.array(["1890", "smith"], dtype=object), np.array(["en", ""], dtype=object)),
        (pd.Series(["1890", "smith"], index=[7, 3]), pd.Series(["en", pd.NA], dtype="string")),
        ((text for text in ["1890", "smith"]), iter(["en", "unk"])),
    ):
        equal(model(texts, languages), expected)
    equal(model("smith"), model(["smith"], "unk"))
    assert model(["smith"]).index.tolist() == [0]


def test_what_codes_mean(files):
    table = pd.DataFrame({"system_code": ["01A", "9", "02B"], "desc": ["first", "last", None]})
    table.to_csv(files / "meanings.csv", index=False)
    for source in (table, files / "meanings.csv"):
        model = OccCANINE(files / "mixer", verbose=False, descriptions=source)
        found = model("smith", "en", prediction_type="full", threshold=0, k_pred=4).iloc[0]
        meanings = {found[f"own_{i}"]: found[f"desc_{i}"] for i in range(1, 5)}
        assert meanings == {"01A": "first", "9": "last", "02B": "Not provided", "-1": "Not provided"}
    with pytest.raises(UsageError, match=r"has no column 'desc': name the columns 'system_code' \(codes\) and 'desc'"):
        OccCANINE(files / "mixer", descriptions=table.drop(columns="desc"))


def test_descriptions_of_hisco_codes_that_were_read_as_numbers(tiny_canine_config):
    table = pd.DataFrame({"system_code": [1110, -1, 61110.0], "desc": ["chemist", "none", "farmer"]})
    model = OccCANINE(skip_load=True, encoder=tiny_canine_config, descriptions=table, verbose=False)
    assert model.key_desc == {"01110": "chemist", "-1": "none", "61110": "farmer"}


def test_codes_outside_the_key_are_said_to_be_unknown(model):
    found = model(TEXTS, LANGUAGES)
    meant = found.melt("occ1", [c for c in found if c.startswith("own_")])["value"]
    described = found.melt("occ1", [c for c in found if c.startswith("desc_")])["value"]
    for code, text in zip(meant, described):
        assert text == ("No pred" if code == "nan" else "Not provided" if code in OWN_KEY else "Unknown code")


def test_thresholds_by_language(files, tmp_path, tiny_canine_config):
    """Those of the original by default; those that were found for a model, where they stand beside it."""
    torch.save(make("flat", tiny_canine_config).state_dict(), tmp_path / "m.bin")
    model = OccCANINE(tmp_path / "m.bin", encoder=tiny_canine_config, verbose=False)
    languages = ["no", "is", "de"]
    probabilities = model(["smith"] * 3, languages, behavior="fast", what="probs")

    def shown(**arguments):
        found = model(["smith"] * 3, languages, behavior="fast", what="bin", k_pred=1919, **arguments)
        return found.drop(columns="occ1").sum(axis=1).tolist()

    assert shown() == [int((p > t).sum()) for p, t in zip(probabilities, (0.34, 0.17, 0.31))]
    assert len(set(shown())) > 1
    assert shown(threshold=0.5) == (probabilities > 0.5).sum(axis=1).tolist()
    (tmp_path / "thresholds.csv").write_text("method,language,threshold,f1,rows\nflat,is,0.9,1,1\nflat,all,0.6,1,1\n")
    assert shown() == [int((p > t).sum()) for p, t in zip(probabilities, (0.6, 0.9, 0.6))]


def test_languages_that_the_model_does_not_know(files, model, tmp_path, tiny_canine_config):
    with pytest.raises(
        UsageError, match=r"lang names 'sv', which the model was not trained with; it knows da, en, and"
    ):
        model(["smith", "weaver"], ["en", "sv"])
    published = OccCANINE(skip_load=True, encoder=tiny_canine_config, verbose=False)
    # As a model from the hub is.
    object.__setattr__(published.predictor.loaded, "languages", frozenset(["ge", "en"]))
    with pytest.warns(
        UserWarning, match=r"'de' \(which it knows as 'ge'\), 'xx', which the model was not trained with"
    ):
        assert len(published(["Schmied"] * 3, ["de", "xx", "en"])) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        published(["smith"] * 2, ["en", "unk"])


def test_what_does_not_fit_into_memory_is_halved(files, capsys, monkeypatch):
    model = OccCANINE(files / "mixer", batch_size=8, verbose=False)
    expected = model(TEXTS, LANGUAGES)
    sizes = []
    greedy = model.predictor.greedy

    def limited(texts, languages, **options):
        if len(texts) > 2:
            raise torch.OutOfMemoryError("too many")
        sizes.append(len(texts))
        return greedy(texts, languages, **options)

    monkeypatch.setattr(model.predictor, "greedy", limited)
    equal(model(TEXTS, LANGUAGES), expected)
    assert sum(sizes) == 7, "distinct pairs"
    warned = capsys.readouterr().out
    assert "7 texts at a time are too much for the memory; it goes on with 3" in warned
    assert "it goes on with 1" in warned


def test_mixed_precision(files, model):
    mixed = OccCANINE(files / "mixer", verbose=False, amp=True)
    found = mixed(TEXTS, LANGUAGES, behavior="fast", what="probs")
    expected = model(TEXTS, LANGUAGES, behavior="fast", what="probs")
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05  # eight bits
    full = mixed(TEXTS, LANGUAGES, prediction_type="full", what="probs")
    assert np.abs(full - model(TEXTS, LANGUAGES, prediction_type="full", what="probs")).max() < 0.05
    assert len(mixed(TEXTS, LANGUAGES)) == len(mixed(TEXTS, LANGUAGES, behavior="fast")) == len(TEXTS)


def test_it_says_what_it_does_if_wanted(files, capsys):
    model = OccCANINE(files / "mixer", batch_size=2)
    model(TEXTS, LANGUAGES)
    captured = capsys.readouterr()
    assert "8 texts, 7 of them distinct, coded by 'greedy' in" in captured.out
    assert "7/7" in captured.err
    assert "mix, own, 4 codes, on cpu)" in repr(model)


# --- What a model cannot do -------------------------------------------------------------------------------------------


def test_methods_by_kind_of_model(files, model):
    flat, seq2seq = (OccCANINE(files / kind, verbose=False) for kind in ("flat", "seq2seq"))
    assert len(flat("smith", behavior="fast")) == len(seq2seq("smith")) == len(seq2seq("smith", prediction_type="full"))
    assert flat("smith", what="embeddings").shape == seq2seq("smith", what="embeddings").shape == (1, 17)
    for method in ("greedy", "full", "greedy-topk"):
        with pytest.raises(
            UsageError, match=f"a flat head alone, which cannot answer by the method {method}: choose flat"
        ):
            flat("smith", prediction_type=method)
    with pytest.raises(UsageError, match="a flat head alone, which cannot answer by the method greedy"):
        flat("smith")
    for method in ("flat", "greedy-topk"):
        with pytest.raises(UsageError, match=r"a decoder alone, .* choose greedy or full \(prediction_type=\)"):
            seq2seq("smith", prediction_type=method)


def test_a_decoder_without_a_key_cannot_search(tmp_path, tiny_canine_config):
    model = make("seq2seq", tiny_canine_config)
    torch.save(model.state_dict(), tmp_path / "m.bin")
    loaded = OccCANINE(tmp_path / "m.bin", encoder=tiny_canine_config, verbose=False)
    object.__setattr__(loaded.predictor.loaded.system, "codes", None)
    with pytest.raises(UsageError, match=r"has no key of all codes, .* put a key\.csv .* or choose the method greedy"):
        loaded("smith", prediction_type="full")
    assert len(loaded("smith")) == 1


def test_a_key_with_a_code_that_cannot_be_spelt(tmp_path, tiny_canine_config):
    key = {"01A": 0, "é": 1}
    save_checkpoint(tmp_path / "last.bin", "mixer", tiny_canine_config, own_system().with_key(key))
    model = OccCANINE(tmp_path, verbose=False)
    with pytest.raises(UsageError, match=r"last\.bin: a code of the key cannot be searched for: Code 'é' has"):
        model("smith", prediction_type="full")
    assert len(model("smith")) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lang": ["en"]}, r"lang has 1 languages and occ1 2 texts: give one for all \(lang='en'\) or one for each"),
        ({"lang": ["en", 5]}, "lang holds 5, which is no text: give short codes"),
        ({"lang": 5}, "lang holds 5, which is no text"),
        ({"behavior": "best"}, "behavior is 'best'; it must be one of 'good', 'fast'"),
        (
            {"prediction_type": "beam"},
            "prediction_type is 'beam'; it must be one of 'flat', 'greedy', 'greedy-topk', 'full'",
        ),
        (
            {"what": "codes"},
            "what is 'codes', which 'greedy' does not give; it must be one of 'pred', 'bin', 'embeddings'",
        ),
        ({"what": "probs"}, "what is 'probs', which 'greedy' does not give"),
        ({"what": "bin", "prediction_type": "greedy-topk"}, "what is 'bin', which 'greedy-topk' does not give"),
        ({"k_pred": 0}, "k_pred is 0; it must be a whole number, at least 1"),
        ({"k_pred": 2.5}, "k_pred is 2.5"),
        ({"threshold": 1.5}, "threshold is 1.5; it must be a probability, 0 to 1"),
        ({"threshold": "high"}, "threshold is 'high'"),
        ({"occ1": pd.DataFrame({"a": ["smith"]})}, "occ1 is a DataFrame: give a text or a list of texts, one column"),
        ({"occ1": {"a": "smith"}}, "occ1 is a dict"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(model, arguments, message):
    with pytest.raises(UsageError, match=message):
        model(**{"occ1": ["smith", "weaver"], **arguments})


def test_a_batch_needs_a_text(files):
    with pytest.raises(UsageError, match="batch_size is 0, but at least 1 text has to run at a time"):
        OccCANINE(files / "mixer", batch_size=0)


# --- The original's names ---------------------------------------------------------------------------------------------


def test_calls_of_the_original_fit():
    assert histocc.prediction_assets.OccCANINE is OccCANINE is Defined
    constructor = "name, device, batch_size, verbose, baseline, hf, force_download, system, model_type, skip_load, "
    constructor += "descriptions, use_within_block_sep, target_cols, encoder, amp"
    assert ", ".join(inspect.signature(OccCANINE).parameters) == constructor
    predict = "occ1, lang, what, threshold, behavior, prediction_type, k_pred, deduplicate, order_invariant_conf"
    assert ", ".join(inspect.signature(OccCANINE.predict).parameters) == f"self, {predict}"


def test_what_the_originals_users_look_at(model):
    assert model.key == {index: code for code, index in OWN_KEY.items()}
    assert model.finetune_key == OWN_KEY
    assert (model.code_len, model.max_seq_len, model.use_within_block_sep) == (3, 48, False)
    assert (model.system, model.model_type, model.batch_size) == ("own", "mix", 256)
    assert model.tokenizer("ab")["input_ids"] == [0xE000, 97, 98, 0xE001]
    assert "OccCANINE" in model.citation()
    assert model.citation(BibTex=True).startswith("@article{")
    model("smith", behavior="fast")
    assert model.prediction_type == "flat"


# --- Text in ASCII ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("møbelsnekker", "mobelsnekker"),
        ("tømrer på Ærø", "tomrer pa AEro".replace("AE", "Ae")),
        ("Wäscherin, Küster, groß", "Wascherin, Kuster, gross"),
        ("ljósmóðir", "ljosmodir"),
        ("þjónn", "thjonn"),
        ("e\u0301levé", "eleve"),
        ("d’œuvre – “x”", 'd\'oeuvre - "x"'),
        ("łódź", "lodz"),
        ("γεωργός", "georgos"),
        ("Ψαράς", "Psaras"),
        ("рыбак", "rybak"),
        ("plain text", "plain text"),
        ("漁師 smith", " smith"),
        ("", ""),
    ],
)
def test_letters_that_are_spelt_out(text, expected):
    assert to_ascii(text) == expected
