"""Answers as Markdown: formatted, but without anything that a browser fetches or follows."""

from __future__ import annotations

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from serving.page.answer_text import SafeText, answer_markdown, safe_markdown

ANSWER = UUID("00000000-0000-4000-8000-000000000001")
PARSER = MarkdownIt("commonmark").enable("table")
PARSER.validateLink = lambda _: True  # type: ignore[method-assign]  # it would hide the worst ones

HOSTILE = [
    "[click](http://evil.example)",
    "![beacon](http://evil.example/i.png)",
    "[click][ref]\n\n[ref]: http://evil.example",
    "[ref\ner]: http://evil.example\n\n[ref er]",
    "<http://evil.example/x>",
    "<javascript:alert(1)>",
    "<img src=http://evil.example/i.png>\n",
    "```\n ```\n[click](http://evil.example)",
    " ```\n```\n[click](http://evil.example)",
    "- ```\n  ```\n[click](http://evil.example)",
    "<div>\n```\n\n[click](http://evil.example)",
    "```\r```\r[click](http://evil.example)",
    "```\n~~~\n```\n[click](http://evil.example)",
    "````\n```\n````\n[click](http://evil.example)",
    "> ```\n```\n[click](http://evil.example)\n```\n[click](http://evil.example)",
    "a ` b\n` [click](http://evil.example) `",
    "[![inner](http://evil.example/i.png)](http://evil.example)",
]


def _links(markdown: str) -> list[str]:
    """Where links and images of a text lead, and blocks of HTML; HTML within a line is shown as text by the page."""
    found = []
    for block in PARSER.parse(markdown):
        for token in [block, *(block.children or [])]:
            if token.type in ("link_open", "image", "html_block"):
                found.append(str(token.attrs.get("href") or token.attrs.get("src") or token.content))
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_document_says_makes_no_link(text: str) -> None:
    assert _links(text) or "`" in text  # the texts are what they are meant to be
    assert _links(safe_markdown(text)) == []


@given(
    st.lists(
        st.sampled_from([*"[]()!<>:`~\n\r ab-", "```", "~~~", "http://e.x", "](", "]: ", "<div>", "  "]), max_size=40
    )
)
def test_no_text_makes_a_link(pieces: list[str]) -> None:
    assert _links(safe_markdown("".join(pieces))) == []


@given(st.lists(st.sampled_from([*"[]()<>:`~\n ab", "```\n", "http://e.x ", "](", "www.e.x"]), max_size=30))
def test_in_parts_a_text_is_the_same_as_whole(pieces: list[str]) -> None:
    text = SafeText()
    shown = "".join(map(text.add, pieces)) + text.rest()

    assert shown == safe_markdown("".join(pieces))


def test_formatting_stays() -> None:
    text = "**bold** and `a[0](x)`\n\n- one\n- two\n\n```python\na[0]: int = b[1](2)  # http://a.example\n```"

    assert safe_markdown(text).split("\n")[2:] == text.split("\n")[2:]
    assert "**bold**" in safe_markdown(text)


def test_an_address_is_shown_as_code() -> None:
    assert safe_markdown("See https://a.example/b?c=1.") == "See `https://a.example/b?c=1`."
    assert safe_markdown("Key:value, 10:30, `a:b`, std::x") == "Key\\:value, 10:30, `a:b`, std\\:\\:x"


def test_marks_open_their_own_quotes() -> None:
    citations = [
        {"number": 1, "source": "/a/guide.md", "page": None, "heading": "Start", "quote": "x", "span": [0, 1]},
        {"number": 1, "source": "/a/guide.md", "page": None, "heading": "Start", "quote": "y", "span": [2, 3]},
        {"number": 2, "source": "b.pdf", "page": 3, "heading": None, "quote": "z", "span": [0, 1]},
    ]

    shown = answer_markdown("One [1], two [1], three [2], none [7].", citations, message_id=ANSWER)

    assert re.findall(r"/sources/[^/]+/(\d+)", shown) == ["1", "2", "3", "1", "3"]
    assert "none [7]" in shown
    assert shown.endswith(
        "guide\\.md · Start\n- [[2]](/sources/00000000-0000-4000-8000-000000000001/3) b\\.pdf · page 3"
    )


def test_a_hostile_name_of_a_source_stays_text() -> None:
    citation = {
        "number": 1,
        "source": "](javascript:alert(1)) ![x](http://e.x/i)",
        "page": None,
        "heading": "<b>",
        "quote": "",
        "span": [0, 0],
    }

    shown = answer_markdown("A [1].", [citation], message_id=ANSWER)

    assert _links(shown) == [f"/sources/{ANSWER}/1"] * 2


def test_an_answer_that_was_not_stored_has_no_links() -> None:
    citation = {"number": 1, "source": "a.md", "page": None, "heading": None, "quote": "", "span": [0, 0]}

    assert _links(answer_markdown("A [1].", [citation], message_id=None)) == []
