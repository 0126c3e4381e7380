"""The batched augmentation beside the scalar one: the same outcomes, equally often."""

import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histocc.attacker import AttackerClass
from histocc.dataloader.augmentation import BatchAugmenter, strip
from histocc.dataloader.encoding import codepoints_of, texts_of
from histocc.dataloader.rows import TextColumn
from histocc.dataloader.words import Words

DRAWS = 30_000


class AllPaths:
    """Stands in for Python's `random` and walks through everything that can be drawn, with its probability.

    The characters of noise are not told apart.
    """

    def __init__(self):
        self.path, self.place, self.probability = [], 0, 1.0

    def _branch(self, weights):
        if self.place == len(self.path):
            self.path.append([0, len(weights)])
        chosen = self.path[self.place][0]
        self.place += 1
        self.probability *= weights[chosen] / sum(weights)
        return chosen

    def random(self):
        return (0.25, 0.75)[self._branch([1, 1])]

    def randrange(self, n):
        return self._branch([1] * n)

    def randint(self, low, high):
        return low + self.randrange(high - low + 1)

    def choice(self, options):
        return options[self.randrange(len(options))]

    def choices(self, options, cum_weights=None, k=None):
        if k is not None:
            return ["x"] * k
        assert cum_weights is None
        return [options[self._branch([1] * len(options))]]

    def outcomes(self, function):
        """Probability of each result of `function`."""
        found = Counter()
        while True:
            self.place, self.probability = 0, 1.0
            result = function()
            found[result] += self.probability
            while self.path and self.path[-1][0] + 1 == self.path[-1][1]:
                self.path.pop()
            if not self.path:
                return found
            self.path[-1][0] += 1


def attack_many(text, augmenter, repeats=DRAWS, epoch=0):
    draws = augmenter.draws(np.arange(repeats), epoch)
    lengths = np.full(repeats, len(text), dtype=np.int64)
    return texts_of(*augmenter.attack(codepoints_of(text * repeats), lengths, draws))


def assert_same_distribution(observed, probabilities):
    """A chi-square test at five standard deviations; outcomes expected under five times are taken together."""
    assert set(observed) <= set(probabilities)
    assert sum(probabilities.values()) == pytest.approx(1)
    total = sum(observed.values())
    pairs = [(observed[key], total * p) for key, p in probabilities.items() if total * p >= 5]
    rare = total - sum(o for o, _ in pairs), total - sum(e for _, e in pairs)
    if rare[1] >= 5:
        pairs.append(rare)
    statistic = sum((o - e) ** 2 / e for o, e in pairs)
    freedom = len(pairs) - 1
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 5


def words_of(*texts):
    return Words.from_column(TextColumn.from_strings(texts))


@pytest.mark.parametrize("text", ["", " ", "æ", "ab", "a b", "  a  c", "p qø", "a b c", "\tq\u2003w\xa0"])
@pytest.mark.parametrize("pool", [None, "k ø"], ids=["no words", "words"])
def test_one_transformation_has_the_same_distribution(text, pool, monkeypatch):
    frame = None if pool is None else pd.DataFrame({"occ1": [pool]})
    augmenter = BatchAugmenter(0.5, 1, 0.0, None if pool is None else words_of(pool), seed=3)
    paths = AllPaths()
    monkeypatch.setattr("histocc.attacker.random", paths)
    attacker = AttackerClass(0.5, 1, df=frame)

    def outcome(result):
        # Noise adds three characters or more, the others two at most: those outcomes are told apart by length.
        return result if len(result) < len(text) + 3 else len(result)

    expected = paths.outcomes(lambda: outcome(attacker.attack(text)))
    assert_same_distribution(Counter(map(outcome, attack_many(text, augmenter))), expected)


def test_two_transformations_have_the_same_distribution(monkeypatch):
    """Of noise only the length counts here."""
    augmenter = BatchAugmenter(1.0, 2, 0.0, words_of("k"), seed=4)
    paths = AllPaths()
    monkeypatch.setattr("histocc.attacker.random", paths)
    attacker = AttackerClass(1.0, 2, df=pd.DataFrame({"occ1": ["k"]}))
    attacker.transformations.remove(attacker.add_leading_trailing_characters)
    without_noise = paths.outcomes(lambda: attacker.attack("Æ b"))
    expected = Counter({key: p * (7 / 8) ** 2 for key, p in without_noise.items()})
    expected[None] = 1 - (7 / 8) ** 2
    # Noise is seen by its draws: the stream of a row says which transformations it gets.
    observed = Counter()
    for result in attack_many("Æ b", augmenter):
        observed[result if result in without_noise else None] += 1
    # What noise leaves behind may by chance be spelt like something else: ' Æ bx' cannot, it has two spaces more.
    noisy_look_alikes = sum(observed.values()) * 0.002
    assert abs(observed.pop(None) - DRAWS * expected.pop(None)) < noisy_look_alikes + 5 * (DRAWS * 0.24 * 0.76) ** 0.5
    kept = sum(expected.values())
    assert_same_distribution(observed, Counter({key: p / kept for key, p in expected.items()}))


def test_noise_has_the_same_distribution():
    augmenter = BatchAugmenter(1.0, 1, 0.0, None, seed=5)
    sides, characters = Counter(), Counter()
    for result in attack_many("ÆØ", augmenter, 4 * DRAWS):
        front, found, back = result.partition(" ÆØ ")
        if found:
            sides[len(front), len(back)] += 1
            characters.update(front + back)
    one, two = 1 / 4, 1 / 2
    expected = {(k, 0): one / 20 for k in range(1, 21)} | {(0, k): one / 20 for k in range(1, 21)}
    expected |= {(i, k): two / 400 for i in range(1, 21) for k in range(1, 21)}
    assert_same_distribution(sides, expected)
    assert_same_distribution(characters, dict.fromkeys("abcdefghijklmnopqrstuvwxyz ", 1 / 27))
    share = sum(sides.values()) / (4 * DRAWS)
    assert share == pytest.approx(1 / 7, abs=0.005)


def test_three_transformations_have_the_same_lengths_and_words():
    text = "smed i byen"
    frame = pd.DataFrame({"occ1": ["husmand og", "fisker"]})
    augmenter = BatchAugmenter(0.3, 3, 0.0, words_of(*frame["occ1"]), seed=6)
    attacker = AttackerClass(0.3, 3, df=frame)
    random.seed(1)
    for measure in (
        len,
        lambda s: len(s.split()),
        lambda s: ("fisker" in s, "byen" in s, s == text),
        lambda s: s.count(" "),
    ):
        expected = Counter(measure(attacker.attack(text)) for _ in range(DRAWS))
        observed = Counter(measure(result) for result in attack_many(text, augmenter))
        # Two samples: the variance of a difference is twice that of one.
        common = [key for key in expected if expected[key] + observed[key] >= 20]
        statistic = sum((expected[k] - observed[k]) ** 2 / (expected[k] + observed[k]) for k in common)
        assert statistic < len(common) + 5 * (2 * len(common)) ** 0.5 + 5


def test_words_are_drawn_by_their_weights():
    words = Words.from_frequencies(pd.DataFrame({"word": ["ÆÆ", "ØØ", "never"], "freq": [3, 1, 0]}))
    augmenter = BatchAugmenter(1.0, 1, 0.0, words, seed=7)
    found = Counter()
    for result in attack_many("Å", augmenter):
        found.update(word for word in ("ÆÆ", "ØØ", "never") if word in result)
    assert found["never"] == 0
    assert found["ÆÆ"] / found["ØØ"] == pytest.approx(3, rel=0.1)
    assert sum(found.values()) / DRAWS == pytest.approx(1 / 8, rel=0.1)


def test_languages_are_hidden_as_often_as_asked():
    augmenter = BatchAugmenter(0.3, 3, 0.25, None, seed=8)
    draws = augmenter.draws(np.arange(DRAWS), 0)
    hidden = augmenter.hides_language(draws)
    assert hidden.mean() == pytest.approx(0.25, abs=0.01)
    unchanged = np.array([result == "smed" for result in attack_many("smed", augmenter)])
    # Whether a row is attacked says nothing about its language.
    assert hidden[unchanged].mean() == pytest.approx(0.25, abs=0.015)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(st.sampled_from("ab '[]\tæ🙂"), max_size=12), min_size=1, max_size=12),
    st.integers(0, 2**63),
    st.integers(0, 3),
)
def test_a_row_is_the_same_in_any_batch(texts, seed, epoch):
    augmenter = BatchAugmenter(0.8, 3, 0.5, words_of(*texts), seed=seed)
    rows = np.arange(len(texts))

    def attack(index):
        chosen = [texts[i] for i in index]
        lengths = np.array([len(text) for text in chosen], dtype=np.int64)
        return texts_of(*augmenter.attack(codepoints_of("".join(chosen)), lengths, augmenter.draws(index, epoch)))

    together = attack(rows)
    assert [attack(rows[i : i + 1])[0] for i in rows] == together
    assert attack(rows[::-1]) == together[::-1]


def test_rows_and_epochs_and_seeds_differ():
    one = attack_many("a fairly long text", BatchAugmenter(1.0, 3, 0.0, None, seed=1), 200)
    assert len(set(one)) > 190
    assert one != attack_many("a fairly long text", BatchAugmenter(1.0, 3, 0.0, None, seed=1), 200, epoch=1)
    assert one != attack_many("a fairly long text", BatchAugmenter(1.0, 3, 0.0, None, seed=2), 200)
    assert one == attack_many("a fairly long text", BatchAugmenter(1.0, 3, 0.0, None, seed=1), 200)


def test_an_endless_text_does_not_change_its_neighbours(monkeypatch):
    import histocc.dataloader.augmentation as module

    texts = ["x" * 5000, "smed", "", "tjener hos", "y" * 700]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    augmenter = BatchAugmenter(1.0, 3, 0.0, words_of("og"), seed=9)

    def attack():
        return texts_of(*augmenter.attack(codepoints_of("".join(texts)), lengths, augmenter.draws(np.arange(5), 0)))

    together = attack()
    monkeypatch.setattr(module, "_MAX_CELLS", 1000)
    assert attack() == together


@given(st.lists(st.text(st.sampled_from("a'[] "), max_size=8)))
def test_strip_is_that_of_strings(texts):
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    assert texts_of(*strip(codepoints_of("".join(texts)), lengths)) == [text.strip("'[]") for text in texts]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"alt_prob is 1\.5"):
        BatchAugmenter(1.5, 3, 0.25)
    with pytest.raises(ValueError, match="unk_lang_prob is -1"):
        BatchAugmenter(0.5, 3, -1)
    with pytest.raises(ValueError, match="n_trans is -1"):
        BatchAugmenter(0.5, -1, 0.25)
