"""One file to its converted text and its chunks, ready to be embedded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from database.errors import SynapseError

if TYPE_CHECKING:
    from haystack import Document, Pipeline
    from haystack.dataclasses import ByteStream


@dataclass(frozen=True, kw_only=True)
class PreparedSource:
    """
    What conversion and splitting made of one file.

    :param text: Its converted text, which the chunks' spans point into.
    :param title: Its title: its own, or its name's.
    :param mime_type: What it was converted from.
    :param file_type: Its suffix without the dot.
    :param content_hash: SHA-256 of the bytes that were converted, hexadecimal.
    :param documents: Its chunks in reading order, without ids of their own and without embeddings; at least one.
    """

    text: str
    title: str
    mime_type: str
    file_type: str
    content_hash: str
    documents: list[Document]


def prepare(pipeline: Pipeline, path: str | os.PathLike[str] | ByteStream, meta: Mapping[str, Any]) -> PreparedSource:
    """
    Convert and split one file.

    :param pipeline: From `build_preparation_pipeline`.
    :param path: The file; its absolute path becomes the chunks' `source`. Or its bytes, whose `meta` names the source.
    :param meta: Metadata from outside the file, which wins over what the file says of itself.
    :raises InvalidInputError: If the file cannot be converted; the message is the reason.
    """
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    result = _run(pipeline, {"router": {"sources": [given], "meta": [dict(meta)]}})
    source = result["splitter"]["sources"][0]
    return PreparedSource(
        text=source.content,
        title=source.meta["title"],
        mime_type=source.meta["mime_type"],
        file_type=source.meta["file_type"],
        content_hash=source.meta["content_hash"],
        documents=result["language"]["documents"],
    )


def _run(pipeline: Pipeline, inputs: dict[str, Any]) -> dict[str, Any]:
    from haystack.core.errors import PipelineRuntimeError

    try:
        return pipeline.run(inputs)
    except PipelineRuntimeError as exc:
        if isinstance(exc.__cause__, SynapseError):
            raise exc.__cause__ from None  # the reason, without where in the pipeline it was found
        raise
