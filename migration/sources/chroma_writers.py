"""Which program has filled a collection, told by the conventions that it leaves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


def writer_of(name: str, samples: Mapping[str, Iterable[str]]) -> str | None:
    """
    Which program that is.

    :param name: The collection's own name.
    :param samples: A few ids with the keys of their metadata.
    :returns: `llama-index`, `chroma-haystack` or `langchain`; `None` if nothing tells.
    """
    keys = {key for found in samples.values() for key in found}
    if {"_node_content", "_node_type"} <= keys:
        return "llama-index"
    if samples and all(_SHA256.match(id) for id in samples):
        return "chroma-haystack"
    if name == "langchain" or (samples and all(_UUID4.match(id) for id in samples)):
        return "langchain"
    return None
