"""Noise on text: the slips of pens, transcribers and keyboards that a model should see in training."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LETTERS = string.ascii_lowercase
NOISE_CHARACTERS = LETTERS + " "
MAX_NOISE = 20

# Each letter's neighbours on a QWERTY keyboard.
KEYBOARD_NEIGHBOURS: dict[str, str] = {
    "a": "qwsz",
    "b": "vghn",
    "c": "xdfv",
    "d": "serfcx",
    "e": "wsdr",
    "f": "rtgvcd",
    "g": "tyhbvf",
    "h": "yujnbg",
    "i": "ujklo",
    "j": "uikmnh",
    "k": "ijolm",
    "l": "kop",
    "m": "njkl",
    "n": "bhjm",
    "o": "iklp",
    "p": "ol",
    "q": "wa",
    "r": "edft",
    "s": "wedxz",
    "t": "rfgy",
    "u": "yhji",
    "v": "cfgb",
    "w": "qase",
    "x": "zsdc",
    "y": "tghu",
    "z": "asx",
}


class AttackerClass:
    """Attacks text with random transformations.

    A text is attacked with probability `alt_prob`; then `n_trans` transformations follow one another, each drawn
    uniformly from `transformations`. All draws come from Python's `random`, as `random.seed` leaves it. The steps are
    methods, which a subclass may override, and `transformations` is a list that may be changed.

    Parameters
    ----------
    alt_prob
        Probability that a text is attacked.
    n_trans
        Transformations per attack.
    df
        A table whose column `occ1` lends the words to insert, each distinct word with the same probability.
    word_freq_table
        A table of words to insert (`word`) and their weights (`freq`); wins over `df`.

    Attributes
    ----------
    transformations
        The functions from text to text that an attack draws from.
    word_list
        The words to insert; without any, no word is inserted.
    qwerty
        The neighbours of each letter on the keyboard.
    word_freq_table
        As given.

    Raises
    ------
    ValueError
        `alt_prob` is no probability, `n_trans` is negative, or a table lacks its columns or has weights that cannot be
        drawn by.
    """

    def __init__(
        self,
        alt_prob: float = 0.8,
        n_trans: int = 3,
        df: pd.DataFrame | None = None,
        word_freq_table: pd.DataFrame | None = None,
    ) -> None:
        _check(alt_prob, n_trans)
        self.alt_prob = alt_prob
        self.n_trans = n_trans
        self.qwerty = dict(KEYBOARD_NEIGHBOURS)
        self.word_freq_table = word_freq_table
        self.word_list: list[str] = []
        self._cum_weights: list[float] | None = None
        if word_freq_table is not None:
            self.word_list, weights = _weighted_words(word_freq_table)
            self._cum_weights = list(accumulate(weights))
        elif df is not None:
            self.word_list = _distinct_words(df)

        self.transformations: list[Callable[[str], str]] = [
            self.random_character_deletion,
            self.qwerty_substitution,
            self.random_character_insertion,
            self.random_character_substitution,
            self.neighboring_character_swap,
            self.word_swap,
            self.add_leading_trailing_characters,
        ]
        if self.word_list:
            self.transformations.append(self.insert_random_word)

    def attack(self, input_string: str) -> str:
        """The text, attacked with probability `alt_prob`."""
        return self._attack(input_string, self.alt_prob, self.n_trans)

    def attack_multiple(self, x_string: Sequence[str], alt_prob: float = 0.8, n_trans: int = 3) -> list[str]:
        """Each of the texts, attacked with probability `alt_prob` by `n_trans` transformations.

        Raises
        ------
        TypeError
            `x_string` is a single string or holds anything but strings.
        ValueError
            `alt_prob` is no probability or `n_trans` is negative.
        """
        _check(alt_prob, n_trans)
        if isinstance(x_string, str):
            raise TypeError("attack_multiple takes a list of strings; use attack for a single one")
        for position, text in enumerate(x_string):
            if not isinstance(text, str):
                raise TypeError(
                    f"Item {position} is {text!r} ({type(text).__name__}), not a string: "
                    f"replace missing text by a string such as ' '"
                )
        return [self._attack(text, alt_prob, n_trans) for text in x_string]

    def apply_transformations(self, sentence: str, n_trans: int) -> str:
        """The text after `n_trans` transformations, each drawn uniformly."""
        for _ in range(n_trans):
            sentence = random.choice(self.transformations)(sentence)
        return sentence

    def _attack(self, text: str, alt_prob: float, n_trans: int) -> str:
        return self.apply_transformations(text, n_trans) if random.random() < alt_prob else text

    @staticmethod
    def random_character_deletion(sentence: str) -> str:
        """Delete one random character."""
        if not sentence:
            return sentence
        i = random.randrange(len(sentence))
        return sentence[:i] + sentence[i + 1 :]

    def qwerty_substitution(self, sentence: str) -> str:
        """Replace one random character by a random neighbour on the keyboard, if it is a letter a-z."""
        if not sentence:
            return sentence
        i = random.randrange(len(sentence))
        neighbours = self.qwerty.get(sentence[i])
        return sentence if not neighbours else sentence[:i] + random.choice(neighbours) + sentence[i + 1 :]

    @staticmethod
    def random_character_insertion(sentence: str) -> str:
        """Insert one random letter a-z at a random gap, both ends included; the empty text stays empty."""
        if not sentence:
            return sentence
        i = random.randrange(len(sentence) + 1)
        return sentence[:i] + random.choice(LETTERS) + sentence[i:]

    @staticmethod
    def random_character_substitution(sentence: str) -> str:
        """Replace one random character by a random letter a-z."""
        if not sentence:
            return sentence
        i = random.randrange(len(sentence))
        return sentence[:i] + random.choice(LETTERS) + sentence[i + 1 :]

    @staticmethod
    def neighboring_character_swap(sentence: str) -> str:
        """Swap two neighbouring characters."""
        if len(sentence) < 2:
            return sentence
        i = random.randrange(len(sentence) - 1)
        return sentence[:i] + sentence[i + 1] + sentence[i] + sentence[i + 2 :]

    @staticmethod
    def word_swap(sentence: str) -> str:
        """Swap two neighbouring words; words come out joined by one space."""
        words = sentence.split()
        if len(words) < 2:
            return sentence
        i = random.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
        return " ".join(words)

    @staticmethod
    def add_leading_trailing_characters(sentence: str, nchars: int = MAX_NOISE) -> str:
        """Put 1 to `nchars` random letters and spaces in front, behind or on both sides (odds 1 : 1 : 2).

        The spaces that join the parts stay, also beside a side that was not drawn.
        """
        front, back = random.random() < 0.5, random.random() < 0.5
        if not (front or back):
            front = back = True
        return f"{_noise(nchars) if front else ''} {sentence} {_noise(nchars) if back else ''}"

    def insert_random_word(self, sentence: str) -> str:
        """Insert one random word of `word_list`, if it has any, at a random word position, both ends included."""
        if not self.word_list:
            return sentence
        words = sentence.split()
        (word,) = random.choices(self.word_list, cum_weights=self._cum_weights)
        words.insert(random.randrange(len(words) + 1), word)
        return " ".join(words)


def _noise(nchars: int) -> str:
    return "".join(random.choices(NOISE_CHARACTERS, k=random.randint(1, nchars)))


def _check(alt_prob: float, n_trans: int) -> None:
    if not 0 <= alt_prob <= 1:
        raise ValueError(f"alt_prob is a probability, so between 0 and 1, not {alt_prob}")
    if n_trans < 0:
        raise ValueError(f"n_trans is a number of transformations, so at least 0, not {n_trans}")


def _distinct_words(table: pd.DataFrame) -> list[str]:
    if "occ1" not in table:
        raise ValueError(f"The table that lends words has no column 'occ1'; its columns are {list(table.columns)}")
    # Sorted: the order of a set changes from one process to the next.
    return sorted({word for text in table["occ1"].dropna() for word in str(text).split()})


def _weighted_words(table: pd.DataFrame) -> tuple[list[str], list[float]]:
    missing = [column for column in ("word", "freq") if column not in table]
    if missing:
        raise ValueError(f"The table of word frequencies lacks {missing}; its columns are {list(table.columns)}")
    words = [str(word) for word in table["word"]]
    weights = [float(freq) for freq in table["freq"]]
    for row, (word, weight) in enumerate(zip(words, weights)):
        if not 0 <= weight < float("inf"):
            raise ValueError(
                f"Row {row} of the table of word frequencies: the weight of {word!r} is {weight}; "
                f"'freq' holds numbers from 0 upwards"
            )
    if not sum(weights) > 0:
        raise ValueError("The table of word frequencies has no word with a weight above 0: add words or leave it out")
    return words, weights
