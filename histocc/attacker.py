"""Noise on text: the slips of pens, transcribers and keyboards that a model should see in training."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
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
    uniformly from `transformations`: delete a character, replace one by a keyboard neighbour, insert a letter,
    replace a character by a letter, swap two neighbouring characters, swap two neighbouring words, put noise around
    the text and, where there are words to draw from, insert a word.

    Args:
        alt_prob: probability that a text is attacked.
        n_trans: transformations per attack.
        df: a table whose column `occ1` lends the words to insert, each distinct word with the same probability.
        word_freq_table: a table of words to insert (`word`) and their weights (`freq`); wins over `df`.
        rng: the generator to draw from; by default Python's `random`, as `random.seed` leaves it.

    Raises:
        ValueError: if `alt_prob` is no probability, `n_trans` is negative, or a table lacks its columns or has
            weights that cannot be drawn by.
    """

    def __init__(
        self,
        alt_prob: float = 0.8,
        n_trans: int = 3,
        df: pd.DataFrame | None = None,
        word_freq_table: pd.DataFrame | None = None,
        *,
        rng: random.Random | None = None,
    ) -> None:
        _check(alt_prob, n_trans)
        self.alt_prob = alt_prob
        self.n_trans = n_trans
        self.rng = random if rng is None else rng
        self.words: list[str] = []
        self.weights: list[float] | None = None
        if word_freq_table is not None:
            self.words, self.weights = _weighted_words(word_freq_table)
        elif df is not None:
            self.words = _distinct_words(df)

        self.transformations: list[Callable[[str], str]] = [
            self.delete_character,
            self.replace_by_neighbour,
            self.insert_letter,
            self.replace_by_letter,
            self.swap_characters,
            self.swap_words,
            self.add_noise_around,
        ]
        if self.words:
            self.transformations.append(self.insert_word)

    def attack(self, s: str) -> str:
        """The text, attacked with probability `alt_prob`."""
        return self._attack(s, self.alt_prob, self.n_trans)

    def attack_multiple(self, x: Sequence[str], alt_prob: float, n_trans: int) -> list[str]:
        """Each of the texts, attacked with probability `alt_prob` by `n_trans` transformations.

        Raises:
            TypeError: if `x` is a single string or holds anything but strings.
            ValueError: if `alt_prob` is no probability or `n_trans` is negative.
        """
        _check(alt_prob, n_trans)
        if isinstance(x, str):
            raise TypeError("attack_multiple takes a list of strings; use attack for a single one")
        for position, text in enumerate(x):
            if not isinstance(text, str):
                raise TypeError(
                    f"Item {position} is {text!r} ({type(text).__name__}), not a string: "
                    f"replace missing text by a string such as ' '"
                )
        return [self._attack(text, alt_prob, n_trans) for text in x]

    def _attack(self, text: str, alt_prob: float, n_trans: int) -> str:
        if self.rng.random() < alt_prob:
            for _ in range(n_trans):
                text = self.rng.choice(self.transformations)(text)
        return text

    def delete_character(self, text: str) -> str:
        """Delete one random character."""
        if not text:
            return text
        i = self.rng.randrange(len(text))
        return text[:i] + text[i + 1 :]

    def replace_by_neighbour(self, text: str) -> str:
        """Replace one random character by a random neighbour on the keyboard, if it is a letter a-z."""
        if not text:
            return text
        i = self.rng.randrange(len(text))
        neighbours = KEYBOARD_NEIGHBOURS.get(text[i])
        return text if neighbours is None else text[:i] + self.rng.choice(neighbours) + text[i + 1 :]

    def insert_letter(self, text: str) -> str:
        """Insert one random letter a-z at a random gap, both ends included; the empty text stays empty."""
        if not text:
            return text
        i = self.rng.randrange(len(text) + 1)
        return text[:i] + self.rng.choice(LETTERS) + text[i:]

    def replace_by_letter(self, text: str) -> str:
        """Replace one random character by a random letter a-z."""
        if not text:
            return text
        i = self.rng.randrange(len(text))
        return text[:i] + self.rng.choice(LETTERS) + text[i + 1 :]

    def swap_characters(self, text: str) -> str:
        """Swap two neighbouring characters."""
        if len(text) < 2:
            return text
        i = self.rng.randrange(len(text) - 1)
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]

    def swap_words(self, text: str) -> str:
        """Swap two neighbouring words; words come out joined by one space."""
        words = text.split()
        if len(words) < 2:
            return text
        i = self.rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
        return " ".join(words)

    def add_noise_around(self, text: str) -> str:
        """Put 1 to 20 random letters and spaces in front, behind or on both sides (odds 1 : 1 : 2).

        The spaces that join the parts stay, also beside a side that was not drawn.
        """
        front, back = self.rng.random() < 0.5, self.rng.random() < 0.5
        if not (front or back):
            front = back = True
        return f"{self._noise() if front else ''} {text} {self._noise() if back else ''}"

    def insert_word(self, text: str) -> str:
        """Insert one random word at a random word position, both ends included."""
        words = text.split()
        (word,) = self.rng.choices(self.words, self.weights)
        words.insert(self.rng.randrange(len(words) + 1), word)
        return " ".join(words)

    def _noise(self) -> str:
        return "".join(self.rng.choices(NOISE_CHARACTERS, k=self.rng.randint(1, MAX_NOISE)))


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
