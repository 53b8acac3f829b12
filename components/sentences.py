"""Sentences and words of a text, good enough to quote from: no model, microseconds a passage."""

from __future__ import annotations

import re

_ABBREVIATIONS = """
    e.g i.e etc vs cf fig figs eq no nos vol pp p ca al dr prof mr mrs ms st jr sr inc ltd co approx resp sec ch ed eds
    z.b d.h u.a bzw usw ggf nr abs art vgl bspw
"""
_ABBREVIATED = frozenset(_ABBREVIATIONS.split())

_END = re.compile(
    r"(?m:^#{1,6}[ \t][^\n]*\n)"  # a heading is a line
    r"|(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019)\]]*+(?=\s)|[\u3002\uff01\uff1f]"
    r"|\n[ \t]*\n|\n(?=[ \t]*(?:\||(?:[-*\u2022>#]|\d+[.)])\s))|\n(?=```)"
)
_WORD = re.compile(r"[^\W_]+(?:['\u2019.-][^\W_]+)*")

_STOP_WORDS = """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing down during each few for from further had has have having he her here hers him his how
    i if in into is it its itself just let me more most my no nor not now of off on once only or other our ours out
    over own please same she should so some such tell than that the their theirs them then there these they this those
    through to too under until up us very was we were what when where which while who whom whose why will with would
    you your yours many much need needs get gets got give gives explain describe show use used using work works way
    does't don't isn't aren't what's who's it's
    aber als am an auch auf aus bei bin bis bist da das dass dein dem den der des die dies diese diesem diesen dieser
    doch du durch ein eine einem einen einer eines er es für hat hatte ich ihr im in ist ja kann kein keine man mein
    mich mir mit nach nicht noch nur ob oder ohne sein sich sie sind so über um und uns von vor wann war warum was
    welche welchem welchen welcher welches wenn wer werden wie wieviel wir wird wo zu zum zur
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English and German words that say nothing about what a text is about."""


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """
    Where the sentences of a text stand.

    A list's items, headings and paragraphs end sentences, too. Spans hold no surrounding white space.

    :returns: `[start, end)` in code points, in order, without overlaps.
    """
    spans = []
    start = 0
    for match in _END.finditer(text):
        if match[0].startswith(".") and _is_abbreviation(text, match.start()):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [trimmed for span in spans if (trimmed := _trimmed(text, *span))]


def content_words(text: str) -> list[str]:
    """The words that carry meaning, as crude stems in lower case, in order; repeated where the text repeats them."""
    return [_stem(word) for word in plain_words(text) if word not in STOP_WORDS]


def plain_words(text: str) -> list[str]:
    """All words in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def _stem(word: str) -> str:
    for ending in ("ings", "ing", "edly", "ied", "ies", "ed", "es", "ly", "en", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _is_abbreviation(text: str, dot: int) -> bool:
    before = re.search(r"[\w.]+$", text[max(0, dot - 20) : dot])
    if before is None:
        return False
    word = before[0].lower()
    following = text[dot + 1 :].lstrip()[:1]
    return word in _ABBREVIATED or (len(word) == 1 and word.isalpha()) or (word.isdigit() and following.islower())


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    stripped = text[start:end].strip()
    if not any(character.isalnum() for character in stripped):
        return None
    start += text[start:end].index(stripped[0])
    return start, start + len(stripped)
