"""Chunks are verbatim slices in order, nothing is lost between them, and the model reads each of them whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from haystack import Document
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from components.section_splitter import SectionSplitter
from components.text_cleaner import TextCleaner, clean_text
from components.token_counter import TokenCounter
from database.errors import ConfigurationError, InvalidInputError

COUNTER = TokenCounter()
SPLITTERS = {limit: SectionSplitter(max_tokens=limit) for limit in (12, 40, 256)}
WORDS = st.sampled_from(
    [
        "the",
        "Ångström",
        "unbelievable",
        "x" * 120,
        "3.14",
        "e.g.",
        "Ende.",
        "!",
        "«oui»",
        "星",
        "猫が好き。",
        "👩‍👩‍👧",
        "a_b",
        "\t",
        "- ",
    ]
)
TEXTS = st.one_of(
    st.text(max_size=400),
    st.lists(st.one_of(WORDS, st.sampled_from(["\n", "\n\n", " "])), max_size=300).map(" ".join),
    st.lists(WORDS, max_size=200).map("".join),
)
SECTIONS = st.lists(
    st.fixed_dictionaries(
        {"text": TEXTS, "kind": st.sampled_from(["prose", "rows", "code"])},
        optional={
            "heading": st.lists(st.sampled_from(["A", "B", "a long heading " * 9]), min_size=1, max_size=3),
            "page": st.integers(1, 3),
            "meta": st.just({"id": 1}),
        },
    ),
    min_size=1,
    max_size=5,
)


def source(sections: list[dict[str, Any]], *, title: str = "A title") -> Document:
    placed, position = [], 0
    for section in sections:
        text = section["text"]
        placed.append({**section, "start": position, "end": position + len(text)})
        position += len(text)
    content = "".join(section["text"] for section in sections)
    meta = {"source": "/s", "title": title, "file_type": "md", "mime_type": "text/markdown"}
    return Document(content=content, meta={**meta, "sections": placed})


def chunks_of(text: str, *, limit: int = 256, **section: Any) -> list[Document]:
    document = source([{"text": text, "kind": "prose", **section}])
    return SPLITTERS[limit].run(documents=[document])["documents"]


@settings(max_examples=150, deadline=None)
@given(
    sections=SECTIONS, limit=st.sampled_from(sorted(SPLITTERS)), title=st.sampled_from(["", "T", "long title " * 40])
)
def test_slices(sections: list[dict[str, Any]], limit: int, title: str) -> None:
    try:
        cleaned = TextCleaner().run(documents=[source(sections, title=title)])["documents"]
        result = SPLITTERS[limit].run(documents=cleaned)
    except InvalidInputError:
        assert not any(clean_text(section["text"]).strip() for section in sections)
        return
    text, chunks = result["sources"][0].content, result["documents"]
    end = 0
    for position, chunk in enumerate(chunks):
        start, stop = chunk.meta["span"]
        assert chunk.content == text[start:stop] != ""
        assert not text[end:start].strip(), "text was lost between two chunks"
        assert start >= end
        assert chunk.meta["position"] == position
        end = stop
    assert not text[end:].strip(), "text was lost after the last chunk"
    for chunk in chunks:
        embedded = "\n".join(filter(None, [chunk.meta["title"], chunk.meta.get("heading"), chunk.content]))
        assert len(chunk.content) == 1 or COUNTER.counts([embedded])[0] <= limit


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_cleaning_again_changes_nothing(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once


def test_cleaning_keeps_every_word() -> None:
    assert clean_text("soft\u00adhyphen\r\nnext\u00a0line\u200b \t\n\n\n\nend\x07") == "softhyphen\nnext line\n\nend"
    assert clean_text("def f():\n\n\n    pass  ", keep_layout=True) == "def f():\n\n\n    pass"


def test_pieces_are_of_about_equal_size() -> None:
    chunks = chunks_of(" ".join(f"This is sentence number {n}." for n in range(50)), limit=256)
    counts = COUNTER.counts([chunk.content or "" for chunk in chunks])
    assert len(chunks) == 2
    assert max(counts) < 1.3 * min(counts)
    assert all((chunk.content or "").endswith(".") for chunk in chunks)


def test_paragraphs_stay_whole_where_they_fit() -> None:
    paragraphs = [f"Paragraph {n}. " + "It has some words. " * 5 for n in range(6)]
    chunks = chunks_of("\n\n".join(paragraphs), limit=40)
    assert [chunk.content for chunk in chunks if (chunk.content or "").startswith("Paragraph")] == [
        paragraph.strip() for paragraph in paragraphs
    ]


def test_sections_with_their_own_headings_stay_apart() -> None:
    long = "Some words that make it more than tiny. " * 5
    sections = [{"text": f"{long}\n\n", "kind": "prose", "heading": [name]} for name in ("A", "B")]
    chunks = SPLITTERS[256].run(documents=[source(sections)])["documents"]
    assert [chunk.meta["heading"] for chunk in chunks] == ["A", "B"]


def test_tiny_neighbours_are_joined_below_their_common_heading() -> None:
    sections = [{"text": f"## {name}\n\nShort.\n\n", "kind": "prose", "heading": ["A", name]} for name in "BCD"]
    (chunk,) = SPLITTERS[256].run(documents=[source(sections)])["documents"]
    assert chunk.meta["heading"] == "A"


def test_bare_heading_goes_with_what_follows() -> None:
    words = "Words and words. " * 20
    sections = [
        {"text": "# Title\n\n", "kind": "prose"},
        {"text": "## Part\n\n", "kind": "prose", "heading": ["Part"]},
        {"text": f"### Detail\n\n{words}", "kind": "prose", "heading": ["Part", "Detail"]},
    ]
    (chunk,) = SPLITTERS[256].run(documents=[source(sections, title="Title")])["documents"]
    assert chunk.meta["heading"] == "Part > Detail"
    assert chunk.meta["span"][0] == 0


def test_chunks_end_with_their_page() -> None:
    sections = [{"text": f"Page {n}.\n\n", "kind": "prose", "page": n} for n in (1, 2, 3)]
    chunks = SPLITTERS[256].run(documents=[source(sections)])["documents"]
    assert [chunk.meta["page"] for chunk in chunks] == [1, 2, 3]


def test_long_title_and_heading_are_shortened() -> None:
    (chunk,) = SPLITTERS[256].run(
        documents=[source([{"text": "x", "kind": "prose", "heading": ["outer " * 60, "inner"]}], title="title " * 200)]
    )["documents"]
    assert chunk.meta["heading"] == "… > inner"
    assert chunk.meta["title"].endswith("title…")


def test_tokenizer_that_sees_more_than_words(tmp_path: Path) -> None:
    """Byte pair encoding counts differently within a text: chunks are counted again as they will be embedded."""
    tokenizer = Tokenizer(models.BPE(unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["?"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["some words of a text"], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 50}))
    splitter, counter = SectionSplitter(model=str(tmp_path)), TokenCounter(str(tmp_path))
    text = "Unseen names: Ångström, Łódź! " * 30
    chunks = splitter.run(documents=[source([{"text": text, "kind": "prose"}], title="T")])["documents"]
    assert counter.limit == 50
    assert max(counter.counts([f"T\n{chunk.content}" for chunk in chunks])) <= 50
    assert "".join("".join((chunk.content or "").split()) for chunk in chunks) == "".join(text.split())


def test_model_without_a_fast_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"was expected to have tokenizer\.json"):
        TokenCounter(str(tmp_path))


def test_limit_is_the_models() -> None:
    assert COUNTER.limit == 256
    assert COUNTER.counts(["hello"]) == [3]
