"""The version of what turns a file into embedded chunks. Imports nothing heavy, so that a sync can compare it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.model_files import DEFAULT_MODEL, has_local_tokenizer

if TYPE_CHECKING:
    from config import Settings

CONVERTER_VERSION = 1
"""Raise it when the converted text or the metadata of some file changes."""

CHUNKER_VERSION = 1
"""Raise it when the same text is split differently."""


def fingerprint(settings: Settings) -> str:
    """
    Sources whose ledger row has another fingerprint are indexed again.

    :param settings: The model is part of it: its tokens limit the chunks. Without one it is the default model.
    """
    model = settings.embedding_model or DEFAULT_MODEL
    guessed = " tokens=guessed" if settings.embedding_base_url and not has_local_tokenizer(model) else ""
    return f"converter={CONVERTER_VERSION} chunker={CHUNKER_VERSION} model={model}{guessed}"
