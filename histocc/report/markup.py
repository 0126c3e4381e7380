"""Pieces of HTML; whatever comes from data or files is escaped here and nowhere else."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

# Characters of a text that are shown.
MOST_CHARACTERS = 120
NOTHING = "–"
_DIRECTIONS = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(value: Any) -> Markup:
    """A value as HTML text, without control characters."""
    return value if isinstance(value, Markup) else Markup(html.escape(visible(str(value))))


def visible(text: str) -> str:
    """A text in which a mark stands for what nobody can read, no file can hold, or turns the text around it."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    # Control characters, lone surrogates, code points that are no characters; and overrides of the direction.
    return unicodedata.category(character) in ("Cc", "Cs", "Cn") or character in _DIRECTIONS


def cut(text: str) -> str:
    """The beginning of a text."""
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"


def quoted(text: str) -> Markup:
    """A text from data, cut where it is long, whose direction of writing stays its own."""
    return Markup(f'<bdi class="text">{escaped(cut(text))}</bdi>')


def code(text: str) -> Markup:
    """A code of a coding system."""
    return Markup(f"<code>{escaped(cut(text))}</code>")


def command(line: str) -> Markup:
    """A command line."""
    return Markup(f"<pre><code>{escaped(line)}</code></pre>")


def listed(items: Iterable[str]) -> Markup:
    """Texts from data, one below the other."""
    shown = "".join(f"<li>{quoted(item)}</li>" for item in items)
    return Markup(f"<ul>{shown}</ul>" if shown else NOTHING)


def percent(value: float | None) -> str:
    """A share in percent; nothing where it is undefined."""
    return NOTHING if value is None or value != value else f"{value:.1f}"


def whole(value: float) -> str:
    """A count with its thousands apart."""
    return f"{int(value):,}"


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], numbers: Iterable[int] = ()) -> Markup:
    """A table; the first cell of a row heads it, and columns in `numbers` are aligned to the right."""
    right = set(numbers)

    def cell(tag: str, i: int, value: Any, scope: str = "") -> str:
        kind = ' class="number"' if i in right else ""
        return f"<{tag}{scope}{kind}>{escaped(value)}</{tag}>"

    head = "".join(cell("th", i, name, ' scope="col"') for i, name in enumerate(columns))
    body = "\n".join(
        "<tr>"
        + cell("th", 0, row[0], ' scope="row"')
        + "".join(cell("td", i, value) for i, value in enumerate(row[1:], start=1))
        + "</tr>"
        for row in rows
    )
    return Markup(
        f"<table>\n<caption>{escaped(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n"
        "</table>"
    )


def folded(summary: str, content: str) -> Markup:
    """Content that is unfolded by a click."""
    return Markup(f"<details>\n<summary>{escaped(summary)}</summary>\n{content}\n</details>")


def section(title: str, *content: str) -> Markup:
    """A section with its heading."""
    inner = "\n".join(filter(None, content))
    return Markup(f"<section>\n<h2>{escaped(title)}</h2>\n{inner}\n</section>")


def paragraph(*parts: Any) -> Markup:
    """A paragraph of texts and pieces of HTML."""
    return Markup(f"<p>{''.join(map(escaped, parts))}</p>")
