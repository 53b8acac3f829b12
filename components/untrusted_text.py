"""
Texts of documents, made harmless for where they go: a model's prompt, or an answer that some program may render.

Documents themselves, and the quotes of citations, stay as they are.
"""

from __future__ import annotations

import re

# What nobody sees: controls, marks of direction, joiners between Latin letters, and the letters of Unicode's tags, which
# spell whole instructions.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e01ef]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])"
)

# Our own quotation's tags, and the signs by which the templates of models begin a turn or a role.
_TURN = re.compile(
    r"[<\uff1c\ufe64](?=\s*/?\s*documents?\b|[|\uff5c]|/?s>|/?(?:start|end)_of_turn>|<?/?SYS>)", re.IGNORECASE
)
_TURN_IN_BRACKETS = re.compile(r"\[(?=/?\s*(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])")

_MARK = re.compile(r"\[(?=\s*\d{1,4}(?:\s*[,;]\s*\d{1,4})*\s*\])")
_OWN_MARK = re.compile(r"\[(?=unsupported\])")

_MARKUP = re.compile(
    r"<(?=!--|/?(?:script|style|iframe|svg|math|template|noscript|plaintext|textarea|title|xmp|object|embed)\b"
    r"|[a-z][^<>]*=)",
    re.IGNORECASE,
)


def as_material(text: str) -> str:
    """
    A text that a model is shown between tags of ours.

    It cannot end its quotation or begin a turn, holds nothing that a reader of the document would not see, and its own
    `[1]` (a footnote, or a forgery) is no citation of ours.
    """
    text = _TURN.sub("&lt;", _UNSEEN.sub("", text))
    return _TURN_IN_BRACKETS.sub("[ ", _without_marks(text))


def as_plain_text(text: str) -> str:
    """
    A text that stands in an answer: where a program takes answers for Markdown or HTML, it has no link, image or tag.

    Its own `[1]` is no citation of ours either.
    """
    text = _without_marks(_UNSEEN.sub("", text))
    return _MARKUP.sub("< ", text.replace("![", "! [").replace("](", "] (").replace("][", "] [").replace("]:", "] :"))


def _without_marks(text: str) -> str:
    return _OWN_MARK.sub("[sic: ", _MARK.sub("[ref ", text))
