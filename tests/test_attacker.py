"""Each transformation against the set of outcomes that its description allows, and their frequencies."""

import random
import string
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest

from histocc.attacker import KEYBOARD_NEIGHBOURS, AttackerClass

LETTERS = string.ascii_lowercase


def transform(name, text, n=20_000, **kwargs):
    """How often each outcome occurs in n applications of one transformation."""
    attacker = AttackerClass(**kwargs)
    random.seed(1)
    method = getattr(attacker, name)
    return Counter(method(text) for _ in range(n))


def assert_frequencies(counts, expected):
    """Every outcome is one of the expected, and each occurs as often as it should, within five standard errors."""
    n = counts.total()
    assert set(counts) <= set(expected)
    assert sum(expected.values()) == pytest.approx(1)
    for outcome, p in expected.items():
        assert counts[outcome] / n == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5 + 1e-9), outcome


def outcomes(pairs):
    """Sum up (outcome, probability) pairs."""
    total = Counter()
    for outcome, p in pairs:
        total[outcome] += p
    return total


TEXT = "baa 9"


def test_random_character_deletion():
    expected = outcomes((TEXT[:i] + TEXT[i + 1 :], 1 / 5) for i in range(5))
    assert_frequencies(transform("random_character_deletion", TEXT), expected)


def test_qwerty_substitution():
    """The space and the digit are drawn like any character, and then nothing happens."""
    expected = outcomes(
        (TEXT[:i] + new + TEXT[i + 1 :], 1 / 5 / len(KEYBOARD_NEIGHBOURS.get(c, c)))
        for i, c in enumerate(TEXT)
        for new in KEYBOARD_NEIGHBOURS.get(c, c)
    )
    assert_frequencies(transform("qwerty_substitution", TEXT), expected)


@pytest.mark.parametrize("text", ["A", "É", "é", "1", " "])
def test_only_lower_case_letters_have_neighbours(text):
    assert_frequencies(transform("qwerty_substitution", text, n=100), {text: 1})


def test_random_character_insertion():
    expected = outcomes((TEXT[:i] + c + TEXT[i:], 1 / 6 / 26) for i in range(6) for c in LETTERS)
    assert_frequencies(transform("random_character_insertion", TEXT), expected)


def test_random_character_substitution():
    expected = outcomes((TEXT[:i] + c + TEXT[i + 1 :], 1 / 5 / 26) for i in range(5) for c in LETTERS)
    assert_frequencies(transform("random_character_substitution", TEXT), expected)


def test_neighboring_character_swap():
    assert_frequencies(transform("neighboring_character_swap", "abcd"), {"bacd": 1 / 3, "acbd": 1 / 3, "abdc": 1 / 3})


def test_word_swap():
    assert_frequencies(transform("word_swap", " a  b\tc "), {"b a c": 1 / 2, "a c b": 1 / 2})
    assert_frequencies(transform("word_swap", " alone  ", n=100), {" alone  ": 1})


def test_noise_around():
    """Sides in the odds 1 : 1 : 2, each 1 to 20 characters of a-z and space; joining spaces always stay."""
    counts = transform("add_leading_trailing_characters", "TEXT")
    sides, lengths, characters = Counter(), Counter(), Counter()
    for outcome, n in counts.items():
        front, back = outcome.split(" TEXT ")
        sides[bool(front), bool(back)] += n
        for noise in filter(None, (front, back)):
            lengths[len(noise)] += n
            characters.update(noise)
    assert_frequencies(sides, {(True, False): 1 / 4, (False, True): 1 / 4, (True, True): 1 / 2})
    assert_frequencies(lengths, dict.fromkeys(range(1, 21), 1 / 20))
    assert_frequencies(characters, dict.fromkeys(LETTERS + " ", 1 / 27))


def test_insert_word_of_the_table():
    """Distinct words, however often they occur."""
    df = pd.DataFrame({"occ1": ["old farmer", "farmer", None, "farmer"]})
    expected = outcomes(
        (" ".join([*words[:i], new, *words[i:]]), 1 / 6)
        for words in [["x", "y"]]
        for i in range(3)
        for new in ("old", "farmer")
    )
    assert_frequencies(transform("insert_random_word", " x  y", df=df), expected)
    assert_frequencies(transform("insert_random_word", "", df=df), {"old": 1 / 2, "farmer": 1 / 2})


def test_insert_word_by_weight_wins_over_the_table():
    df = pd.DataFrame({"occ1": ["farmer"]})
    freq = pd.DataFrame({"word": ["a", "b", "never"], "freq": [1, 3, 0]})
    counts = transform("insert_random_word", "", df=df, word_freq_table=freq)
    assert_frequencies(counts, {"a": 1 / 4, "b": 3 / 4})


@pytest.mark.parametrize(
    ("kwargs", "n"),
    [
        ({}, 7),
        ({"df": pd.DataFrame({"occ1": ["farmer"]})}, 8),
        ({"word_freq_table": pd.DataFrame({"word": ["a"], "freq": [1]})}, 8),
        ({"df": pd.DataFrame({"occ1": ["", None]})}, 7),
    ],
)
def test_words_are_inserted_only_where_there_are_some(kwargs, n):
    assert len(AttackerClass(**kwargs).transformations) == n


def test_transformations_are_drawn_uniformly():
    attacker = AttackerClass(1, 1, df=pd.DataFrame({"occ1": ["farmer"]}))
    random.seed(0)
    drawn = Counter()
    attacker.transformations = [
        lambda text, name=method.__name__: drawn.update([name]) or text for method in attacker.transformations
    ]
    for _ in range(8_000):
        attacker.attack("x")
    assert len(drawn) == 8
    assert_frequencies(drawn, dict.fromkeys(drawn, 1 / 8))


@pytest.mark.parametrize("n_trans", [0, 1, 3])
def test_transformations_follow_one_another(n_trans):
    attacker = AttackerClass(1.0, n_trans)
    random.seed(0)
    attacker.transformations = [lambda text: text + "+"]
    assert attacker.attack("x") == "x" + "+" * n_trans


@pytest.mark.parametrize("alt_prob", [0, 0.3, 1])
def test_share_of_attacked_texts(alt_prob):
    attacker = AttackerClass(alt_prob, 1)
    random.seed(0)
    attacker.transformations = [lambda text: "attacked"]
    counts = Counter(attacker.attack("x") for _ in range(10_000))
    assert_frequencies(counts, {"attacked": alt_prob, "x": 1 - alt_prob})


CHARACTER_TRANSFORMATIONS = [
    "random_character_deletion",
    "qwerty_substitution",
    "random_character_insertion",
    "random_character_substitution",
    "neighboring_character_swap",
]


@pytest.mark.parametrize("name", [*CHARACTER_TRANSFORMATIONS, "word_swap"])
def test_empty_text_passes_unchanged(name):
    assert_frequencies(transform(name, "", n=50), {"": 1})


def test_one_character():
    assert_frequencies(transform("random_character_deletion", "x", n=50), {"": 1})
    assert_frequencies(transform("neighboring_character_swap", "x", n=50), {"x": 1})
    assert set(transform("random_character_insertion", "x")) == {c + "x" for c in LETTERS} | {"x" + c for c in LETTERS}


def test_characters_beyond_ascii_survive_what_does_not_touch_them():
    assert_frequencies(transform("neighboring_character_swap", "é😀"), {"😀é": 1})


def test_keyboard():
    assert set(KEYBOARD_NEIGHBOURS) == set(LETTERS)
    for letter, neighbours in KEYBOARD_NEIGHBOURS.items():
        assert set(neighbours) <= set(LETTERS) - {letter}
        assert len(set(neighbours)) == len(neighbours)


def test_same_seed_same_attacks():
    df = pd.DataFrame({"occ1": ["servant girl", "farmer"]})
    texts = ["blacksmith", "", "a", "day labourer"] * 20
    results = []
    for seed in (3, 3, 4):
        random.seed(seed)
        results.append([AttackerClass(df=df).attack(text) for text in texts])
    first, again, other = results
    assert first == again != other


def test_attack_multiple_takes_its_own_settings():
    attacker = AttackerClass(alt_prob=1, n_trans=5)
    random.seed(0)
    attacker.transformations = [lambda text: text + "+"]
    assert attacker.attack_multiple(["a", "b"], 1, 2) == ["a++", "b++"]
    assert attacker.attack_multiple(["a", "b"], 0, 2) == ["a", "b"]
    assert attacker.attack_multiple([], 1, 2) == []


def test_arguments_have_the_names_and_defaults_of_the_original():
    attacker = AttackerClass(alt_prob=0.0, n_trans=1)
    attacker.transformations = [lambda text: text + "+"]
    assert attacker.attack(input_string="a") == "a"
    random.seed(0)
    counts = Counter(attacker.attack_multiple(x_string=["a"] * 5_000))
    assert_frequencies(counts, {"a": 0.2, "a+++": 0.8})
    random.seed(0)
    assert all(len(AttackerClass.add_leading_trailing_characters("", nchars=2)) <= 2 + 2 + 2 for _ in range(100))


def test_steps_can_be_called_without_an_attacker():
    assert AttackerClass.random_character_deletion("x") == ""
    assert AttackerClass.word_swap("a b") == "b a"
    assert AttackerClass().insert_random_word("a  b") == "a  b"


def test_overridden_steps_count():
    class Loud(AttackerClass):
        @staticmethod
        def word_swap(sentence):
            return sentence.upper()

        def apply_transformations(self, sentence, n_trans):
            return super().apply_transformations(sentence, n_trans) + "!"

    attacker = Loud(1.0, 1)
    attacker.transformations = [attacker.transformations[5]]
    assert attacker.attack("a b") == "A B!"


def test_attributes_set_later_count():
    attacker = AttackerClass(1.0, 1, df=pd.DataFrame({"occ1": ["old"]}))
    attacker.qwerty["é"] = "e"
    assert attacker.qwerty_substitution("é") == "e"
    assert AttackerClass().qwerty_substitution("é") == "é"
    attacker.word_list[:] = ["new"]
    assert attacker.insert_random_word("") == "new"


@pytest.mark.parametrize("bad", [None, float("nan"), 5, b"x"])
def test_attack_multiple_refuses_what_is_no_string(bad):
    with pytest.raises(TypeError, match=r"Item 1 is .* not a string: replace missing text"):
        AttackerClass().attack_multiple(["a", bad], 1, 1)


def test_attack_multiple_refuses_a_single_string():
    with pytest.raises(TypeError, match="takes a list of strings"):
        AttackerClass().attack_multiple("farmer", 1, 1)


@pytest.mark.parametrize("alt_prob", [-0.1, 1.1, float("nan")])
def test_probability_out_of_range(alt_prob):
    with pytest.raises(ValueError, match="between 0 and 1"):
        AttackerClass(alt_prob)
    with pytest.raises(ValueError, match="between 0 and 1"):
        AttackerClass().attack_multiple(["a"], alt_prob, 1)


def test_negative_number_of_transformations():
    with pytest.raises(ValueError, match="at least 0, not -1"):
        AttackerClass(n_trans=-1)


def test_tables_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"no column 'occ1'; its columns are \['text'\]"):
        AttackerClass(df=pd.DataFrame({"text": ["a"]}))
    with pytest.raises(ValueError, match=r"lacks \['freq'\]; its columns are \['word', 'n'\]"):
        AttackerClass(word_freq_table=pd.DataFrame({"word": ["a"], "n": [1]}))


@pytest.mark.parametrize("weight", [-1, float("nan"), float("inf")])
def test_weights_that_are_none(weight):
    with pytest.raises(ValueError, match=r"Row 1 .* the weight of 'b' is"):
        AttackerClass(word_freq_table=pd.DataFrame({"word": ["a", "b"], "freq": [1, weight]}))


@pytest.mark.parametrize("weights", [[], [0.0]])
def test_word_table_without_weight(weights):
    table = pd.DataFrame({"word": ["a"] * len(weights), "freq": weights})
    with pytest.raises(ValueError, match="no word with a weight above 0"):
        AttackerClass(word_freq_table=table)


def test_importing_is_light():
    code = (
        "import sys, histocc; before = set(sys.modules); import histocc.attacker; "
        "print(*sorted({'pandas', 'torch', 'transformers'} & (set(sys.modules) - before)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
