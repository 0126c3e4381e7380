"""Entries of a stored file as checked values: what each may hold, and one form of message for what it must not.

A checkpoint, a key, the notes of a preparation or the configuration of an encoder may come from anywhere. Each entry
passes a check before anything uses it; all that fail are told together, with file, entry, what it holds and what is
expected.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from histocc.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Check = Callable[[Any], T]

_MOST_LISTED = 5
_MOST_NAME = 100
_MOST_BITS = 128
_MOST_CHARACTERS = 4096
_MOST_ITEMS = 1000
# Counts of steps, rows and epochs: far beyond any run, and exact as a float64.
MOST = 10**12

_missing = object()


class Unexpected(ValueError):
    """A value that its check refuses; the message is what is expected instead.

    Parameters
    ----------
    expected
        What the entry may hold, in words.
    where
        Which part of the value is wrong, such as ``['a'][2]``; '' for all of it.
    value
        That part.
    """

    def __init__(self, expected: str, where: str = "", value: Any = _missing) -> None:
        super().__init__(expected)
        self.expected = expected
        self.where = where
        self.value = value


class _Shown(reprlib.Repr):
    """`repr` for people: short whatever the value, and never an error."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 60
        self.maxlevel = 2
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 3

    def repr_int(self, value: int, level: int) -> str:
        bits = value.bit_length()
        return repr(value) if bits <= _MOST_BITS else f"a number of about {math.ceil(bits * math.log10(2)):,} digits"

    def repr_bytes(self, value: bytes, level: int) -> str:
        return self.repr_str(value[: self.maxstring], level)

    def repr_instance(self, value: Any, level: int) -> str:
        # A value can be a tensor only where torch is there.
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return _describe_tensor(value)
        if value is None or isinstance(value, (bool, float)):
            return repr(value)
        return f"a value of type {type(value).__name__}"


def shown(value: Any) -> str:
    """A value as messages quote it: at most some 60 characters."""
    return _Shown().repr(value)


def _describe_tensor(tensor: Tensor) -> str:
    """Type, shape and whatever is unusual about a tensor, in words."""
    kind = str(tensor.dtype).removeprefix("torch.")
    layout = str(tensor.layout).removeprefix("torch.")
    if layout != "strided":
        kind = f"{layout.removesuffix('_coo')} {kind}"
    shape = "of several shapes" if tensor.is_nested else list(tensor.shape)
    return f"a tensor of {kind} {shape}" + (f" on {tensor.device}" if tensor.device.type != "cpu" else "")


class Entries:
    """What is wrong with the entries of one file.

    Parameters
    ----------
    file
        Its name in messages.
    advice
        What to do about it; ends the message.
    """

    def __init__(self, file: Any, advice: str) -> None:
        self.file = file
        self.advice = advice
        self._faults: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    def check(self, name: str, value: Any, check: Check[T]) -> T | None:
        """The value as `check` gives it back; where it is refused, that is noted, and the value is None."""
        try:
            return check(value)
        except Unexpected as error:
            self.refuse(name + error.where, value if error.value is _missing else error.value, error.expected)
            return None

    def take(self, entries: Mapping[str, Any], name: str, check: Check[T], inside: str = "") -> T | None:
        """The entry `name` of a mapping, checked; that it is not there is noted too.

        Parameters
        ----------
        entries, name, check
            The mapping, the entry and what it may hold.
        inside
            What stands before the name in messages, such as ``position.``.
        """
        if name not in entries:
            self.note(f"the entry {inside}{name} is missing")
            return None
        return self.check(inside + name, entries[name], check)

    def refuse(self, name: str, value: Any, expected: str) -> None:
        """Note that an entry holds `value`, and what is expected."""
        self.note(f"the entry {name:.{_MOST_NAME}} holds {shown(value)}; {expected} is expected")

    def note(self, fault: str) -> None:
        """Note any other fault."""
        self._faults.append(fault)

    def raise_if_any(self) -> None:
        """Raise one `UsageError` with all that was noted, the first ones in words; do nothing if there is none."""
        if not self._faults:
            return
        more = len(self._faults) - _MOST_LISTED
        if len(self._faults) == 1:
            raise UsageError(f"{self.file}: {self._faults[0]}. {self.advice}")
        lines = "".join(f"\n  {fault}" for fault in self._faults[:_MOST_LISTED])
        lines += f"\n  ... and {more:,} more" if more > 0 else ""
        raise UsageError(f"{self.file} holds {len(self._faults):,} entries that cannot be used:{lines}\n{self.advice}")


# -- checks ------------------------------------------------------------------------------------------------------------


def whole(low: int = 0, high: int = MOST) -> Check[int]:
    """A whole number in `low` .. `high`."""
    expected = f"a whole number from {low:,} to {high:,}"

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Unexpected(expected)
        return int(value)

    return check


def count(high: int = MOST) -> Check[int]:
    """A whole number from 0 on that may have been stored as a float."""
    exact = whole(0, high)

    def check(value: Any) -> int:
        return exact(int(value) if isinstance(value, float) and value.is_integer() else value)

    return check


def number(low: float = -math.inf, high: float = math.inf, *, infinite: bool = False) -> Check[float]:
    """A number in `low` .. `high`; finite, unless `infinite` allows what the bounds do."""
    bounds = f" from {low:g} to {high:g}" if high < math.inf else f" from {low:g} on" if low > -math.inf else ""
    expected = ("a number" if infinite else "a finite number") + bounds

    def check(value: Any) -> float:
        if figure(value, expected) != value or not low <= value <= high:
            raise Unexpected(expected)
        if not infinite and not math.isfinite(value):
            raise Unexpected(expected)
        return float(value)

    return check


def figure(value: Any, expected: str = "a number") -> float:
    """A number, which need not be finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unexpected(expected)
    try:
        return float(value)
    except OverflowError:
        raise Unexpected(expected) from None


def flag(value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise Unexpected("True or False")
    return value


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise Unexpected("a text")
    return value


def one_of(*values: Any) -> Check[Any]:
    """One of some values, of the same type."""
    expected = "one of " + ", ".join(map(repr, values))

    def check(value: Any) -> Any:
        if not any(type(value) is type(each) and value == each for each in values):
            raise Unexpected(expected)
        return value

    return check


def optional(check: Check[T]) -> Check[T | None]:
    """None, or what `check` allows."""

    def or_none(value: Any) -> T | None:
        try:
            return None if value is None else check(value)
        except Unexpected as error:
            expected = error.expected if error.where else f"None or {error.expected}"
            raise Unexpected(expected, error.where, error.value) from None

    return or_none


def list_of(check: Check[T], length: int | None = None) -> Check[list[T]]:
    """A list or tuple, each item of which `check` allows."""
    expected = "a list" if length is None else f"a list of length {length:,}"

    def all_items(value: Any) -> list[T]:
        if not isinstance(value, (list, tuple)) or (length is not None and len(value) != length):
            raise Unexpected(expected)
        return [part(f"[{i}]", item, check) for i, item in enumerate(value)]

    return all_items


def mapping(value: Any) -> dict[str, Any]:
    """A mapping whose names are texts."""
    if not isinstance(value, Mapping):
        raise Unexpected("a mapping")
    for name in value:
        if not isinstance(name, str):
            raise Unexpected("a text as name", " (one of its names)", name)
    return dict(value)


def mapping_of(check: Check[T]) -> Check[dict[str, T]]:
    """A mapping from texts to what `check` allows."""

    def all_values(value: Any) -> dict[str, T]:
        return {name: part(f"[{name!r:.60}]", item, check) for name, item in mapping(value).items()}

    return all_values


def part(where: str, value: Any, check: Check[T]) -> T:
    try:
        return check(value)
    except Unexpected as error:
        at_fault = value if error.value is _missing else error.value
        raise Unexpected(error.expected, where + error.where, at_fault) from None


def plain(value: Any) -> Any:
    """A value that can be compared and shown: None, True, a number, a text (all of ordinary length), a list of such."""
    if isinstance(value, (list, tuple)) and len(value) <= _MOST_ITEMS and all(map(_is_plain, value)):
        return list(value)
    if not _is_plain(value):
        raise Unexpected("a number, a text, or a list of such")
    return value


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MOST_CHARACTERS
    return value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= _MOST_BITS)


def key(num_classes: int | None = None) -> Check[dict[str, int]]:
    """The class of each code: a mapping from codes to distinct whole numbers, below `num_classes` where it is given.

    Codes may have been stored as numbers, which files of others do.
    """
    index = whole(0, MOST if num_classes is None else num_classes - 1)

    def check(value: Any) -> dict[str, int]:
        if not isinstance(value, Mapping):
            raise Unexpected("a mapping from codes to classes")
        classes: dict[str, int] = {}
        codes: dict[int, str] = {}
        for code, class_index in value.items():
            # The original reads an empty cell of its key as a number that is none.
            empty = isinstance(code, float) and code != code
            name = code if isinstance(code, str) else "" if empty else shown(code)
            if not isinstance(code, (str, int, float)) or name in classes:
                raise Unexpected("each code once, as text", " (one of its codes)", code)
            classes[name] = part(f"[{name!r:.60}]", class_index, index)
            other = codes.setdefault(classes[name], name)
            if other != name:
                raise Unexpected(f"a class that {other!r:.60} does not have", f"[{name!r:.60}]", class_index)
        return classes

    return check
