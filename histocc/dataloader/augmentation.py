"""Noise on descriptions, a batch at a time; the same distribution as `histocc.attacker.AttackerClass`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from histocc.attacker import KEYBOARD_NEIGHBOURS, MAX_NOISE
from histocc.dataloader.draws import Draws, scale
from histocc.dataloader.encoding import codepoints_of
from histocc.dataloader.words import Words, is_space
from histocc.errors import UsageError

SPACE = ord(" ")
# A matrix of texts larger than this is split, so that one endless text does not blow up a whole batch.
_MAX_CELLS = 2**22

_LETTERS = codepoints_of("abcdefghijklmnopqrstuvwxyz")
_LETTERS_AND_SPACE = codepoints_of("abcdefghijklmnopqrstuvwxyz ")
_STRIPPED = codepoints_of("'[]")

# Which numbers of a row's stream serve what: attack, language, description, and the seeds of Python's `random` for code
# of the user's own: `__getitem__`, parts of an item, attacker. Each transformation has a block of its own.
ATTACK, HIDE_LANGUAGE, ADD_DESCRIPTION, OWN_ITEM, OWN_PART, ATTACKER = range(6)
_FIRST_BLOCK, _BLOCK = 16, 64
_KIND, _PLACE, _CHOICE, _FRONT, _BACK, _FRONT_LENGTH, _BACK_LENGTH = range(7)
_FRONT_CHARS, _BACK_CHARS = 16, 16 + MAX_NOISE


def _neighbour_table(neighbours: Mapping[str, object]) -> tuple[np.ndarray, np.ndarray]:
    counts = np.zeros(len(_LETTERS), dtype=np.int64)
    table = np.zeros((len(_LETTERS), 8), dtype=np.uint32)
    for letter, near in neighbours.items():
        row = ord(letter) - ord("a")
        counts[row] = len(near)
        table[row, : len(near)] = [ord(char) for char in near]
    return table, counts


_NEIGHBOURS, _NEIGHBOUR_COUNTS = _neighbour_table(KEYBOARD_NEIGHBOURS)


class BatchAugmenter:
    """Attacks descriptions and hides languages.

    What happens to a row depends on (seed, epoch, row) and its text only: it is the same in any batch and with any
    number of workers.

    Parameters
    ----------
    alt_prob
        Probability that a row is attacked.
    n_trans
        Transformations of an attacked row, one after the other.
    unk_lang_prob
        Probability that a row's language is replaced by `unk`.
    words
        The pool for inserted words; without it (or if empty) no words are inserted.
    seed
        Of the run.

    Raises
    ------
    UsageError
        A probability lies outside 0..1 or `n_trans` is negative.
    """

    def __init__(
        self, alt_prob: float, n_trans: int, unk_lang_prob: float, words: Words | None = None, seed: int = 42
    ) -> None:
        for name, value in (("alt_prob", alt_prob), ("n_trans", n_trans), ("unk_lang_prob", unk_lang_prob)):
            check_noise(name, value)
        self.alt_prob = alt_prob
        self.n_trans = n_trans
        self.unk_lang_prob = unk_lang_prob
        self.seed = seed
        self.words = words if words is not None and len(words) else None
        self._transformations = [
            _delete_char,
            _hit_neighbouring_key,
            _insert_char,
            _replace_char,
            _swap_chars,
            _swap_words,
            _add_noise,
        ]

    @property
    def has_effect(self) -> bool:
        """Whether a text or a language may be changed (stripping aside, which needs no random numbers)."""
        return (self.alt_prob > 0 and self.n_trans > 0) or self.unk_lang_prob > 0

    def draws(self, rows: np.ndarray, epoch: int) -> Draws:
        """The rows' random numbers of an epoch."""
        return Draws(self.seed, epoch, rows)

    def attack(self, codepoints: np.ndarray, lengths: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Texts as they are trained on: some attacked, all stripped of `'`, `[` and `]` at both ends.

        Parameters
        ----------
        codepoints
            The texts end to end, uint32.
        lengths
            Characters of each, int64 [n].
        draws
            The rows' random numbers.

        Returns
        -------
        tuple[np.ndarray, np.ndarray]
            The same for the changed texts.
        """
        attacked = draws.uniform(ATTACK) < self.alt_prob
        if self.n_trans and attacked.any():
            of_attacked = np.repeat(attacked, lengths)
            changed, changed_lengths = self._transform(
                codepoints[of_attacked], lengths[attacked], draws.at(np.flatnonzero(attacked))
            )
            kept = codepoints[~of_attacked]
            lengths = lengths.copy()
            lengths[attacked] = changed_lengths
            of_attacked = np.repeat(attacked, lengths)
            codepoints = np.empty(len(of_attacked), dtype=np.uint32)
            codepoints[of_attacked] = changed
            codepoints[~of_attacked] = kept
        return strip(codepoints, lengths)

    def hides_language(self, draws: Draws) -> np.ndarray:
        """Which rows lose their language, bool [n]."""
        return draws.uniform(HIDE_LANGUAGE) < self.unk_lang_prob

    def _transform(self, codepoints: np.ndarray, lengths: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """Apply the transformations to all of the texts."""
        rows, width = len(lengths), int(lengths.max(initial=0))
        if rows > 1 and rows * width > _MAX_CELLS:
            return self._transform_in_halves(codepoints, lengths, draws)
        matrix = np.zeros((rows, max(width, 1)), dtype=np.uint32)
        matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = codepoints
        lengths = lengths.copy()
        kinds = len(self._transformations) + (self.words is not None)
        for step in range(self.n_trans):
            first = _FIRST_BLOCK + step * _BLOCK
            kind = draws.below(first + _KIND, kinds)
            for k in range(kinds):
                chosen = np.flatnonzero(kind == k)
                if not len(chosen):
                    continue
                old = lengths[chosen]
                part = matrix[chosen, : max(int(old.max()), 1)]
                if k < len(self._transformations):
                    part, new = self._transformations[k](part, old, draws.at(chosen), first)
                else:
                    part, new = self._insert_word(part, old, draws.at(chosen), first)
                lengths[chosen] = new
                wider = part.shape[1] - matrix.shape[1]
                if wider > 0:
                    matrix = np.pad(matrix, ((0, 0), (0, wider)))
                matrix[chosen, : part.shape[1]] = part
        return matrix[np.arange(matrix.shape[1]) < lengths[:, None]], lengths

    def _transform_in_halves(
        self, codepoints: np.ndarray, lengths: np.ndarray, draws: Draws
    ) -> tuple[np.ndarray, np.ndarray]:
        """Apply the transformations to the shorter and the longer texts apart."""
        order = np.argsort(lengths, kind="stable")
        long = np.zeros(len(lengths), dtype=bool)
        long[order[len(order) // 2 :]] = True
        in_long = np.repeat(long, lengths)
        parts, new = [], lengths.copy()
        for texts, chars in ((~long, ~in_long), (long, in_long)):
            part, new[texts] = self._transform(codepoints[chars], lengths[texts], draws.at(np.flatnonzero(texts)))
            parts.append(part)
        in_long = np.repeat(long, new)
        out = np.empty(len(in_long), dtype=np.uint32)
        out[~in_long], out[in_long] = parts
        return out, new

    def _insert_word(
        self, matrix: np.ndarray, lengths: np.ndarray, draws: Draws, first: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """One word of the pool at a random place among the words."""
        codepoints, word_lengths = self.words.take(self.words.choose(draws.uniform(first + _CHOICE)))
        matrix, lengths, nb_words = _single_spaced(matrix, lengths)
        place = draws.below(first + _PLACE, nb_words + 1)
        behind = (place == nb_words) & (nb_words > 0)  # ' word' at the end, 'word ' before another
        segment = np.full((len(lengths), int(word_lengths.max()) + 1), SPACE, dtype=np.uint32)
        column = np.arange(segment.shape[1])[None] - behind[:, None]
        segment[(column >= 0) & (column < word_lengths[:, None])] = codepoints
        at = np.where(behind, lengths, _gap(matrix, lengths, place) + 1)
        return _splice(matrix, lengths, at, segment, word_lengths + (nb_words > 0))


def check_noise(name: str, value: float) -> None:
    """Raise UsageError where a setting of the noise, called `name`, makes no sense."""
    if name == "n_trans":
        if value < 0:
            raise UsageError(f"n_trans is {value}, but there cannot be fewer than 0 transformations")
    elif not 0 <= value <= 1:
        raise UsageError(f"{name} is {value}, but a probability lies in 0..1")


def strip(codepoints: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts without the characters `'`, `[`, `]` at both ends; arguments and result as in `BatchAugmenter.attack`."""
    starts = np.cumsum(lengths) - lengths
    first, last = starts.copy(), starts + lengths  # last: one beyond
    stripped = np.append(np.isin(codepoints, _STRIPPED), False)
    if not stripped.any():
        return codepoints, lengths
    while (drop := (first < last) & stripped[first]).any():
        first += drop
    while (drop := (first < last) & stripped[last - 1]).any():
        last -= drop
    at = np.arange(len(codepoints))
    keep = (at >= np.repeat(first, lengths)) & (at < np.repeat(last, lengths))
    return codepoints[keep], last - first


def _splice(
    matrix: np.ndarray, lengths: np.ndarray, at: np.ndarray, segment: np.ndarray, segment_lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put the first `segment_lengths` characters of `segment` in front of character `at` of each text."""
    width = matrix.shape[1]
    column = np.arange(width + segment.shape[1])
    end = (at + segment_lengths)[:, None]
    source = np.where(column >= end, column - segment_lengths[:, None], column)
    out = np.take_along_axis(matrix, np.minimum(source, width - 1), axis=1)
    out[(column >= at[:, None]) & (column < end)] = segment[np.arange(segment.shape[1]) < segment_lengths[:, None]]
    return out, lengths + segment_lengths


def _delete_char(matrix: np.ndarray, lengths: np.ndarray, draws: Draws, first: int) -> tuple[np.ndarray, np.ndarray]:
    place = draws.below(first + _PLACE, lengths)
    width = matrix.shape[1]
    column = np.arange(width)
    source = np.minimum(column + (column >= place[:, None]), width - 1)
    return np.take_along_axis(matrix, source, axis=1), np.maximum(lengths - 1, 0)


def _hit_neighbouring_key(
    matrix: np.ndarray, lengths: np.ndarray, draws: Draws, first: int
) -> tuple[np.ndarray, np.ndarray]:
    rows, place = np.arange(len(lengths)), draws.below(first + _PLACE, lengths)
    char = matrix[rows, place]
    is_letter = (char >= ord("a")) & (char <= ord("z")) & (lengths > 0)
    letter = np.where(is_letter, char - np.uint32(ord("a")), 0)
    near = _NEIGHBOURS[letter, draws.below(first + _CHOICE, _NEIGHBOUR_COUNTS[letter])]
    matrix[rows, place] = np.where(is_letter, near, char)
    return matrix, lengths


def _insert_char(matrix: np.ndarray, lengths: np.ndarray, draws: Draws, first: int) -> tuple[np.ndarray, np.ndarray]:
    letter = _LETTERS[draws.below(first + _CHOICE, len(_LETTERS))]
    place = draws.below(first + _PLACE, lengths + 1)
    return _splice(matrix, lengths, place, letter[:, None], np.minimum(lengths, 1))  # nothing into an empty text


def _replace_char(matrix: np.ndarray, lengths: np.ndarray, draws: Draws, first: int) -> tuple[np.ndarray, np.ndarray]:
    letter = _LETTERS[draws.below(first + _CHOICE, len(_LETTERS))]
    # In an empty text this writes behind its end, where nothing counts.
    matrix[np.arange(len(lengths)), draws.below(first + _PLACE, lengths)] = letter
    return matrix, lengths


def _swap_chars(matrix: np.ndarray, lengths: np.ndarray, draws: Draws, first: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.flatnonzero(lengths > 1)
    place = draws.below(first + _PLACE, np.maximum(lengths - 1, 0))[rows]
    matrix[rows, place], matrix[rows, place + 1] = matrix[rows, place + 1], matrix[rows, place]
    return matrix, lengths


def _swap_words(matrix: np.ndarray, lengths: np.ndarray, draws: Draws, first: int) -> tuple[np.ndarray, np.ndarray]:
    spaced, spaced_lengths, nb_words = _single_spaced(matrix, lengths)
    place = draws.below(first + _PLACE, np.maximum(nb_words - 1, 0))
    begin = (_gap(spaced, spaced_lengths, place) + 1)[:, None]
    middle = _gap(spaced, spaced_lengths, place + 1)[:, None]
    end = _gap(spaced, spaced_lengths, place + 2)[:, None]
    column = np.arange(matrix.shape[1])
    seam = begin + end - middle - 1  # where the space between the two words comes to stand
    source = np.where(column < seam, column + middle + 1 - begin, column - (end - middle))
    source = np.where(column == seam, middle, source)
    source = np.where((column >= begin) & (column < end), source, column)
    several = nb_words > 1
    source = np.where(several[:, None], source, column)
    swapped = np.take_along_axis(spaced, source, axis=1)
    return np.where(several[:, None], swapped, matrix), np.where(several, spaced_lengths, lengths)


def _add_noise(matrix: np.ndarray, lengths: np.ndarray, draws: Draws, first: int) -> tuple[np.ndarray, np.ndarray]:
    front = draws.bits(first + _FRONT) >> np.uint64(63) == 0
    back = draws.bits(first + _BACK) >> np.uint64(63) == 0
    neither = ~front & ~back
    front_lengths = np.where(front | neither, 1 + draws.below(first + _FRONT_LENGTH, MAX_NOISE), 0)
    back_lengths = np.where(back | neither, 1 + draws.below(first + _BACK_LENGTH, MAX_NOISE), 0)
    chars = _LETTERS_AND_SPACE[scale(draws.block(first + _FRONT_CHARS, 2 * MAX_NOISE), len(_LETTERS_AND_SPACE))]

    segment = np.full((len(lengths), MAX_NOISE + 1), SPACE, dtype=np.uint32)
    column = np.arange(MAX_NOISE + 1)
    segment[:, :-1] = chars[:, :MAX_NOISE]
    segment[column == front_lengths[:, None]] = SPACE
    matrix, lengths = _splice(matrix, lengths, np.zeros_like(lengths), segment, front_lengths + 1)
    segment[:, 0] = SPACE
    segment[:, 1:] = chars[:, MAX_NOISE:]
    return _splice(matrix, lengths, lengths, segment, back_lengths + 1)


def _single_spaced(matrix: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`' '.join(text.split())` for each text, its length, and the number of its words; the matrix keeps its shape."""
    column = np.arange(matrix.shape[1])
    in_word = ~is_space(matrix) & (column < lengths[:, None])
    begins = in_word.copy()
    begins[:, 1:] &= ~in_word[:, :-1]
    nb_words = begins.sum(axis=1)
    # The character before each word but the first stays, as a space.
    gap = np.zeros_like(begins)
    gap[:, :-1] = begins[:, 1:] & (np.cumsum(begins, axis=1)[:, 1:] > 1)
    keep = in_word | gap
    new_lengths = keep.sum(axis=1)
    out = np.zeros_like(matrix)
    out[column < new_lengths[:, None]] = np.where(gap, np.uint32(SPACE), matrix)[keep]
    return out, new_lengths, nb_words


def _gap(matrix: np.ndarray, lengths: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Position of the space behind the first `number` words of single-spaced texts: -1 for 0, the length at the end."""
    spaces = np.cumsum((matrix == SPACE) & (np.arange(matrix.shape[1]) < lengths[:, None]), axis=1)
    position = np.minimum((spaces < number[:, None]).sum(axis=1), lengths)
    return np.where(number == 0, -1, position)
