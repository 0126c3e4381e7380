"""`report.html`: one page that is whole, safe and readable."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from histocc.files.json_files import write_json
from histocc.report.charts import STYLES, Curve, chart
from histocc.report.page import STYLE, report_page
from histocc.report.record import RunRecord
from tests.report.conftest import metrics

VOID = {"meta"}
HOSTILE = "</style></pre><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;\x00\x1b\ud800\u202e]]>{{7*7}}"


class Page(HTMLParser):
    """The elements of a page; a tag that does not fit where it stands is an error."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, *tags: str) -> str:
        return " ".join(text for tag in tags for text in self.text.get(tag, []))


def drawn(facts, folder, step=800):
    record = RunRecord.read(folder)
    return report_page(facts, record, record.details(step))


def test_every_section_is_there(facts, folder):
    page = Page(drawn(facts, folder))
    assert page.text["h2"] == [
        *("How good it is", "How it learnt", "Codes that are confused", "Codes that are hardly found"),
        *("What to run next", "Settings"),
    ]
    assert "40.0 % of 10 validation rows get exactly their codes (decoded)" in page.all("p")
    assert "Where training has the same description it is 87.5 %, where it has not, 21.5 %" in page.all("p")
    captions = page.all("caption")
    for kind in ("By description", "By number of true codes", "By language"):
        for head in ("decoded", "teacher-forced", "flat head"):
            assert re.search(rf"{kind}[^–]* – {head}", captions)
    cells = page.all("td")
    assert "99.5" in cells  # of a language
    assert "–" in page.text["td"]  # a precision of nothing
    assert page.all("code").split()[:2] == ["61110", "62105"]
    assert "gårdmand" in page.all("bdi")
    assert "From the decoded codes of 10 rows." in page.all("p")
    for command in ("histocc predict", "histocc evaluate", "histocc export", facts.command):
        assert command in page.all("code")
    assert "--batch-size" in page.all("dt")
    assert [title.strip() for title in page.text["figcaption"]] == [
        *("Loss", "Validation loss of the decoder", "Validation loss of the flat head", "Exact sets of codes"),
        *("F1 over codes", "The original's accuracies", "Learning rate", "Throughput"),
    ]
    assert sum(tag == "polyline" for tag, _ in page.tags) == 9
    assert page.all("title").startswith("run: Step 800 of 800")


def test_nothing_comes_from_elsewhere_and_nothing_runs(facts, folder):
    text = drawn(facts, folder)
    tags = Page(text).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:|src=|href=", text)
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in tags)


def test_hostile_texts_stay_texts(facts, folder):
    hostile = dataclasses.replace(
        facts,
        system=HOSTILE,
        command=HOSTILE,
        encoder=HOSTILE,
        tables={HOSTILE: [HOSTILE]},
        languages={HOSTILE: 1},
        header={HOSTILE: HOSTILE},
        changed={HOSTILE: [HOSTILE]},
        settings={HOSTILE: HOSTILE},
        versions={"histocc": HOSTILE, HOSTILE: HOSTILE},
    )
    bad = HOSTILE.replace("\ud800", "")
    content = metrics(bad, bad)
    for kind, names in (("confused", ("true", "predicted")), ("worst_covered", ("code",))):
        content["mistakes"][kind][0].update(dict.fromkeys(names, bad))
    write_json(folder / "metrics" / "800.json", content)
    plain, text = Page(drawn(facts, folder)), drawn(hostile, folder.rename(folder.with_name("<b>run & co")))
    page = Page(text)
    text.encode()
    kinds = {tag for tag, _ in page.tags}
    assert kinds == {tag for tag, _ in plain.tags}
    assert "<script>alert(1)</script>" in page.all("bdi")
    assert "<script>alert(1)</script>" in page.all("pre", "code")
    assert "<b>run & co" in page.all("h1")
    assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e]", text)


def test_long_texts_are_cut(facts, folder):
    write_json(folder / "metrics" / "800.json", metrics(text="x" * 10**6))
    text = drawn(facts, folder)
    assert len(text) < 60_000
    assert "x" * 120 + "…" in text


def test_a_run_without_details_has_its_curves(facts, folder):
    (folder / "metrics" / "800.json").unlink()
    page = Page(drawn(facts, folder))
    assert "No figures by group of rows are on file" in page.all("p")
    assert sum(tag == "figure" for tag, _ in page.tags) == 8


@pytest.mark.parametrize(
    "points",
    [
        [(5, 0.3)],
        [(5, 0.0), (6, 0.0)],
        [(1, 1e-9), (2, 3e-9)],
        [(0, -5.0), (10**9, 1e12)],
        [(i, float(i % 7)) for i in range(5000)],
    ],
)
def test_curves_lie_within_their_chart(points):
    drawing = chart("Loss", "units", [Curve("a", points), Curve("none", [])])
    page = Page(drawing)
    (line,) = [attributes for tag, attributes in page.tags if tag == "polyline"]
    places = [tuple(map(float, place.split(","))) for place in line["points"].split()]
    assert all(50 <= x <= 352 and 8 <= y <= 184 for x, y in places)
    assert len(places) == min(len(points), 240)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    lowest, highest = (f(points, key=lambda point: point[1]) for f in (min, max))
    if highest[1] > lowest[1]:
        assert min(y for _, y in places) < max(y for _, y in places)
    assert len(set(page.text["text"])) >= 2


def test_a_chart_without_curves_is_left_out():
    assert chart("Loss", "units", [Curve("none", [])]) == ""


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_curves_stand_out_against_every_background():
    """WCAG 2.2, AA: 4.5 for text (1.4.3), 3 for curves (1.4.11)."""
    variables = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", STYLE))
    used = re.findall(r"(?<![-\w])(color|fill|background): (?:var\(--(\w+)\)|(#[0-9a-f]{6}))", STYLE)
    colours = {kind: {variables.get(name, value) for k, name, value in used if k == kind} for kind, _, _ in used}
    assert len(colours["color"] | colours["fill"]) >= 3
    for text in colours["color"] | colours["fill"]:
        assert all(contrast(text, paper) >= 4.5 for paper in colours["background"]), text
    assert all(contrast(curve, variables["paper"]) >= 3 for curve, _ in STYLES)


def test_nothing_is_wider_than_a_phone():
    assert all(int(pixels) <= 390 for pixels in re.findall(r"(\d+)px", STYLE))
    assert not re.findall(r"(?<!max-)width: \d+(?:\.\d+)?(?:rem|em|vw)", STYLE)
