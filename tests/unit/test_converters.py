"""What each converter keeps of a file: its text, headings, pages, title and metadata."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pptx
import pytest
from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream

from components.file_types import FILE_TYPES, file_type, title_from_name
from components.pdf_converter import without_running_lines
from config import Settings
from database.errors import InvalidInputError
from pipelines.indexing import build_preparation_pipeline
from pipelines.preparation import PreparedSource, prepare
from tests.support.pdf import pdf_bytes

EXAMPLES = Path(__file__).parents[2] / "examples" / "documents"
LONG = "This part is long enough to stay by itself, because it has many more words than a tiny one. " * 3


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build_preparation_pipeline(Settings())


def converted(pipeline: Pipeline, name: str, data: bytes | str, **meta: Any) -> PreparedSource:
    data = data.encode() if isinstance(data, str) else data
    return prepare(pipeline, ByteStream(data=data, meta={"source": f"/folder/{name}"}), meta)


def headings(prepared: PreparedSource) -> list[str | None]:
    return [document.meta.get("heading") for document in prepared.documents]


def content(document: Document) -> str:
    return document.content or ""


# Markdown


def test_markdown_headings_and_front_matter(pipeline: Pipeline) -> None:
    text = (
        "---\ntitle: A guide\nyear: 2024\nreviewed: 2024-03-18\nat: 2024-03-18 10:30:00\ndraft: false\ntags: [a, b]\n"
        f"span: mine\n---\n# A guide\n\n{LONG}\n\n## First\n\n{LONG}\n\n### Inner\n\n{LONG}\n\nSecond\n------\n\n{LONG}\n"
    )
    prepared = converted(pipeline, "guide.md", text)
    assert headings(prepared) == [None, "First", "First > Inner", "Second"]
    assert prepared.title == "A guide"
    meta = prepared.documents[0].meta
    assert {key: meta[key] for key in ("year", "reviewed", "at", "draft", "tags", "original_span")} == {
        "year": 2024,
        "reviewed": "2024-03-18",
        "at": "2024-03-18T10:30:00",
        "draft": False,
        "tags": ["a", "b"],
        "original_span": "mine",
    }
    assert "reviewed" not in prepared.text


def test_markdown_code_is_no_heading(pipeline: Pipeline) -> None:
    prepared = converted(
        pipeline, "a.md", f"# Real\n\n{LONG}\n\n```sh\n# a comment\n```\n\n~~~\n# another\n~~~\n{LONG}\n"
    )
    assert set(headings(prepared)) == {None}
    assert prepared.title == "Real"


def test_markdown_with_several_top_headings_keeps_them(pipeline: Pipeline) -> None:
    prepared = converted(pipeline, "a.md", f"# One *more*\n\n{LONG}\n\n# [Two](https://example.org)\n\n{LONG}\n")
    assert headings(prepared) == ["One more", "Two"]


def test_thematic_break_is_no_front_matter(pipeline: Pipeline) -> None:
    assert converted(pipeline, "a.md", "---\n\nSome text.\n\n---\n").text == "---\n\nSome text.\n\n---"


# Metadata


def test_given_metadata_wins(pipeline: Pipeline) -> None:
    text = "---\nyear: 2023\ntitle: Its own\nteam: a\n---\n# Heading\n\ntext"
    prepared = converted(pipeline, "a.md", text, year=2024, title="Given", source="mine", language="la")
    meta = prepared.documents[0].meta
    assert (meta["year"], meta["title"], meta["team"], meta["language"]) == (2024, "Given", "a", "la")
    assert (meta["source"], meta["original_source"]) == ("/folder/a.md", "mine")


def test_chunks_carry_what_a_citation_needs(tmp_path: Path, pipeline: Pipeline) -> None:
    path = tmp_path / "note.txt"
    path.write_text("The observatory is open on Fridays, and on Saturdays if the sky is clear enough to see stars.")
    meta = prepare(pipeline, path, {}).documents[0].meta
    modified = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")
    assert meta == {
        "source": str(path),
        "title": "note",
        "file_type": "txt",
        "content_hash": hashlib.sha256(path.read_bytes()).hexdigest(),
        "modified": modified,
        "span": [0, len(path.read_text())],
        "position": 0,
        "language": "en",
    }


def test_metadata_that_json_cannot_hold(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInputError, match="field 'x' of the given metadata is inf, which JSON cannot hold"):
        converted(pipeline, "a.txt", "text", x=float("inf"))


# Text, HTML


def test_form_feeds_are_pages(pipeline: Pipeline) -> None:
    prepared = converted(pipeline, "a.txt", "one\ftwo\f\fthree")
    assert [(content(d), d.meta["page"]) for d in prepared.documents] == [("one", 1), ("two", 2), ("three", 4)]


def test_html(pipeline: Pipeline) -> None:
    page = f"""<html lang="en-GB"><head><title>The &amp; page</title><meta name="year" content="2024">
    <meta name="viewport" content="width=1"><style>p {{}}</style></head><body><nav>Menu</nav><h1>The &amp; page</h1>
    <p>{LONG}</p><h2>A <em>list</em></h2><p>{LONG}</p><ul><li>one<li>two</ul><h3>Table</h3><p>{LONG}</p>
    <table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table><pre>  kept
    layout</pre><script>alert()</script><!-- unseen --></body></html>"""
    prepared = converted(pipeline, "a.html", page)
    assert prepared.title == "The & page"
    assert headings(prepared) == [None, "A list", "A list > Table"]
    meta = prepared.documents[0].meta
    assert (meta["year"], meta["lang"]) == (2024, "en-GB")
    assert "viewport" not in meta
    assert "- one\n- two" in prepared.text
    assert "a | b\n1 | 2" in prepared.text
    assert not any(word in prepared.text for word in ("Menu", "alert", "unseen"))


def test_html_encoding_of_its_own(pipeline: Pipeline) -> None:
    page = '<meta charset="iso-8859-1"><p>Größe „Äpfel“</p>'.encode("cp1252")
    assert converted(pipeline, "a.html", page).text == "Größe „Äpfel“"


# PDF


def test_pdf_pages_bookmarks_and_title(pipeline: Pipeline) -> None:
    pages = [
        [
            "Company - internal",
            "Intro",
            *[f"Words {n}" for n in range(5)],
            "1",
        ],
        ["Company - internal", "end of intro", *["many words"] * 20, "Second part", "More words", "2"],
        ["Company - internal", "Third page", "3"],
        ["Company - internal", "Fourth page", "4"],
    ]
    data = pdf_bytes(pages, title="A manual", author="Someone", bookmarks=[("Intro", 1), ("Second part", 2)])
    prepared = converted(pipeline, "a.pdf", data)
    assert prepared.title == "A manual"
    assert prepared.documents[0].meta["author"] == "Someone"
    assert [(d.meta["page"], d.meta.get("heading"), content(d).split("\n")[0]) for d in prepared.documents] == [
        (1, "Intro", "Intro"),
        (2, "Intro", "end of intro"),
        (2, "Second part", "Second part"),
        (3, "Second part", "Third page"),
        (4, "Second part", "Fourth page"),
    ]
    assert "internal" not in prepared.text


def test_words_cut_at_a_line_end_are_joined(pipeline: Pipeline) -> None:
    assert (
        converted(pipeline, "a.pdf", pdf_bytes([["The obser-", "vatory is open."]])).text == "The observatory is open."
    )


def test_lines_of_a_short_pdf_stay() -> None:
    assert without_running_lines(["head\na", "head\nb", "head\nc"]) == ["head\na", "head\nb", "head\nc"]


def test_pdf_title_that_says_nothing(pipeline: Pipeline) -> None:
    data = pdf_bytes([["text"]], title="Microsoft Word - draft2.docx")
    assert converted(pipeline, "yearly_report.pdf", data).title == "yearly report"


# Office


def test_docx(pipeline: Pipeline) -> None:
    word, buffer = docx.Document(), io.BytesIO()
    word.core_properties.author = "Someone"
    word.add_heading("The guide", 0)
    word.add_heading("Part", 1)
    word.add_paragraph(LONG)
    word.add_heading("Inner", 2)
    word.add_paragraph("one", style="List Bullet")
    word.add_paragraph("two", style="List Bullet")
    word.add_paragraph(LONG)
    table = word.add_table(rows=2, cols=3)
    for cell, text in zip([c for row in table.rows for c in row.cells], "abcdef", strict=True):
        cell.text = text
    table.rows[1].cells[0].merge(table.rows[1].cells[1])
    word.save(buffer)
    prepared = converted(pipeline, "a.docx", buffer.getvalue())
    assert prepared.title == "The guide"
    assert headings(prepared) == ["Part", "Part > Inner"]
    assert "- one\n- two\n\nThis part" in prepared.text
    assert prepared.text.endswith("a | b | c\nd e | f")
    assert prepared.documents[0].meta["author"] == "Someone"
    assert "page" not in prepared.documents[0].meta


def test_pptx(pipeline: Pipeline) -> None:
    presentation, buffer = pptx.Presentation(), io.BytesIO()
    for number, title in enumerate(("First", "Second"), 1):
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = f"point {number}\nanother"
    slide.notes_slide.notes_text_frame.text = "Say this."
    presentation.save(buffer)
    prepared = converted(pipeline, "a.pptx", buffer.getvalue())
    assert [(d.meta["page"], d.meta["heading"], content(d)) for d in prepared.documents] == [
        (1, "First", "First\n\n- point 1\n- another"),
        (2, "Second", "Second\n\n- point 2\n- another\n\nNotes: Say this."),
    ]


def test_xlsx(pipeline: Pipeline) -> None:
    workbook, buffer = openpyxl.Workbook(), io.BytesIO()
    workbook.active.title = "Money"
    workbook.active.append(["item", "euros", "paid", "on"])
    workbook.active.append(["lens", 1200.0, True, datetime.datetime(2024, 5, 1)])
    workbook.active.append(["bolt", 0.25, None, None])
    workbook.create_sheet("Far")["ZZ99999"] = "alone"
    workbook.save(buffer)
    prepared = converted(pipeline, "a.xlsx", buffer.getvalue())
    assert [(d.meta["heading"], content(d)) for d in prepared.documents] == [
        ("Money", "item: lens; euros: 1200; paid: true; on: 2024-05-01\nitem: bolt; euros: 0.25"),
        ("Far", "column 702: alone"),
    ]


# Tables, records


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", 'name,year\n"Ann, B.",2024\n"two\nlines",\n', "name: Ann, B.; year: 2024\nname: two lines"),
        ("a.csv", "name;price\nlens;1,5\nbolt;0,2\n", "name: lens; price: 1,5\nname: bolt; price: 0,2"),
        ("a.tsv", "a\tb,c\n1\t2\n", "a: 1; b,c: 2"),
        ("a.csv", "1,2\n3,4\n", "column 1: 1; column 2: 2\ncolumn 1: 3; column 2: 4"),
        ("a.csv", "a,b\n1,2,3\n", "a: 1; b: 2; column 3: 3"),
        ("a.csv", "a,b\n", "a; b"),
    ],
)
def test_tables(name: str, text: str, expected: str, pipeline: Pipeline) -> None:
    assert converted(pipeline, name, text).text == expected


def test_rows_are_grouped_and_never_cut_where_they_fit(pipeline: Pipeline) -> None:
    rows = "".join(f"{n},name {n},{n * 7}\n" for n in range(200))
    prepared = converted(pipeline, "a.csv", "id,name,value\n" + rows)
    assert 10 < len(prepared.documents) < 30
    assert all(line.startswith("id: ") for d in prepared.documents for line in content(d).split("\n"))


def test_records_become_sections_with_their_fields(pipeline: Pipeline) -> None:
    records = [
        {"id": 1, "title": "One", "body": "First text.", "year": 2024, "position": "mine"},
        {"id": 2, "body": "Second text.", "nested": {"a": [1, None]}},
        {"id": 3, "body": ""},
    ]
    prepared = converted(pipeline, "a.jsonl", "\n".join(map(json.dumps, records)))
    first, second, third = (document.meta for document in prepared.documents)
    assert [content(d) for d in prepared.documents] == ["First text.", "Second text.", "id: 3"]
    assert (first["title"], first["year"], first["original_position"], first["position"]) == ("One", 2024, "mine", 0)
    assert (second["title"], second["nested"]) == ("a", {"a": [1, None]})
    assert third["id"] == 3


def test_title_given_from_outside_wins_over_records(pipeline: Pipeline) -> None:
    prepared = converted(pipeline, "a.json", '[{"title": "Own", "text": "x", "year": 1}]', title="Given", year=2)
    assert (prepared.documents[0].meta["title"], prepared.documents[0].meta["year"]) == ("Given", 2)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ({"data": [{"text": "a"}, {"text": "b"}], "count": 2}, ["a", "b"]),
        (
            {"name": "x", "size": {"w": 1.5, "tags": ["p", "q"]}, "on": True},
            ["name: x\nsize.w: 1.5\nsize.tags: p, q\non: true"],
        ),
        (["one", "two"], ["one\n\ntwo"]),
        ("just text", ["just text"]),
    ],
)
def test_json_shapes(value: Any, texts: list[str], pipeline: Pipeline) -> None:
    assert [content(d) for d in converted(pipeline, "a.json", json.dumps(value)).documents] == texts


def test_half_a_surrogate_pair_in_a_text_is_shown(pipeline: Pipeline) -> None:
    assert converted(pipeline, "a.json", '{"text": "half \\ud83d pair"}').text == "half \ufffd pair"


# Code


def test_python(pipeline: Pipeline) -> None:
    body = "".join(f"        value_{n} = compute({n})\n" for n in range(12))
    code = f'"""A module."""\n\nimport os\n\n\n# Why.\n@decorated\ndef one():\n{body}\n\nclass Two:\n    """Doc."""\n\n    def run(self):\n{body}\n\nprint(1)\n'
    prepared = converted(pipeline, "a.py", code)
    assert headings(prepared) == [None, "one", "Two", "Two > run", None]
    assert content(prepared.documents[1]).startswith("# Why.\n@decorated\ndef one():")
    assert prepared.text == code.strip()
    assert {d.meta["language"] for d in prepared.documents} == {"en"}


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("a.go", "package a\n\n// Run runs.\nfunc (s *Server) Run() {\n%s}\n\ntype T struct {\n%s}\n", ["Run", "T"]),
        ("a.sql", "CREATE TABLE IF NOT EXISTS \"x\" (\n%s);\ncreate or replace function f() as\n%s;\n", ["x", "f"]),
        ("a.js", "export default async function go(a) {\n%s}\nclass B extends A {\n%s}\n", ["go", "B"]),
        ("a.c", "static int *find(const char *name)\n{\n%s}\n\nint main(void) {\n%s}\n", ["find", "main"]),
        ("a.rs", "pub(crate) fn f<T>(x: T) {\n%s}\nimpl T {\n%s}\n", ["f", "T"]),
    ],
)  # fmt: skip
def test_other_languages(name: str, code: str, expected: list[str], pipeline: Pipeline) -> None:
    body = "".join(f"    value_{n} = compute({n});\n" for n in range(12))
    found = [heading for heading in headings(converted(pipeline, name, code % (body, body))) if heading]
    assert found == expected


# Everything


def test_language_of_each_chunk(pipeline: Pipeline) -> None:
    german = "Die Sternwarte ist jeden Freitag geöffnet, und bei klarem Himmel auch am Samstag. " * 3
    french = "La bibliothèque est ouverte du mardi au vendredi, et les membres empruntent cinq livres. " * 3
    prepared = converted(pipeline, "a.md", f"# Eins\n\n{german}\n\n# Deux\n\n{french}\n\n# Drei\n\n1 2 3\n")
    assert [d.meta.get("language") for d in prepared.documents] == ["de", "fr", "de"]


def test_language_that_nothing_tells(pipeline: Pipeline) -> None:
    assert "language" not in converted(pipeline, "a.csv", "1,2\n3,4\n").documents[0].meta


def test_every_example_is_converted(pipeline: Pipeline) -> None:
    kinds = set()
    for path in sorted(EXAMPLES.iterdir()):
        if path.name.endswith(".meta.json"):
            continue
        prepared = prepare(pipeline, path, {})
        kinds.add(FILE_TYPES[path.suffix].converter)
        for document in prepared.documents:
            start, end = document.meta["span"]
            assert document.content == prepared.text[start:end]
            assert document.meta["language"] in ("en", "de", "fr")
    assert kinds == {kind.converter for kind in FILE_TYPES.values()}


def test_file_types() -> None:
    assert file_type("/a/B.MD") == FILE_TYPES[".md"]
    assert file_type("/a/b") is None
    assert title_from_name("/a/night_log  2024.txt") == "night log 2024"
