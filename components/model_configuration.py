"""What a model's files say of it, without loading it: imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.model_files import DEFAULT_MODEL, model_location
from database.errors import ConfigurationError
from database.health.patient import ModelFiles

WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")


def model_files(name: str, *, offline: bool = False, cache: Path | None = None) -> ModelFiles:
    """
    Look at the files of a sentence-transformers model.

    :param name: A name on the hub, or a local folder.
    :param offline: Whether what is missing cannot be fetched from the hub.
    :param cache: Where the hub's models are kept; `None` means its default.
    :returns: The dimension of its vectors, as its modules say it, or why it cannot be loaded.
    """
    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        cure = f"Set EMBEDDING_MODEL to a folder that is there, or to {DEFAULT_MODEL}."
        return ModelFiles(name=name, problem=f"there is no folder {name}", cure=cure)
    try:
        folder = _folder(name, cache=cache)
    except ConfigurationError as exc:
        return ModelFiles(name=name, problem=exc.message, cure=exc.hint)
    if folder is None:
        return ModelFiles(
            name=name,
            problem="its files are not on this machine, and HF_HUB_OFFLINE is set"
            if offline
            else "it is fetched when it is used",
            cure=f"Unset HF_HUB_OFFLINE and run python synapse.py search once, or set EMBEDDING_MODEL to {DEFAULT_MODEL}.",
            downloadable=not offline,
        )
    if not any((folder / weights).is_file() or (folder / "0_Transformer" / weights).is_file() for weights in WEIGHTS):
        return ModelFiles(
            name=name, problem=f"there are no weights in {folder}", cure=f"Fetch {name} again: delete {folder} first."
        )
    try:
        return ModelFiles(name=name, dimension=_dimension(folder))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        return ModelFiles(
            name=name, problem=f"its configuration in {folder} cannot be read: {exc}", cure=f"Fetch {name} again."
        )


def _folder(name: str, *, cache: Path | None) -> Path | None:
    """
    Where the files are; `None` where they would have to be fetched.

    :raises ConfigurationError: If the default model's package is missing.
    """
    if name == DEFAULT_MODEL:
        return Path(model_location(name, weights=False))
    if Path(name).is_dir():
        return Path(name)
    kept = (cache or Path.home() / ".cache" / "huggingface" / "hub") / f"models--{name.replace('/', '--')}"
    if not kept.is_dir() and "/" not in name:
        kept = kept.with_name(f"models--sentence-transformers--{name}")
    try:
        return kept / "snapshots" / (kept / "refs" / "main").read_text().strip()
    except OSError:
        return None


def _dimension(folder: Path) -> int | None:
    """The last module that says what it gives: a dense layer, or else the pooling of the transformer's vectors."""
    dimension = None
    modules = folder / "modules.json"
    if not modules.is_file():
        return _number(_read(folder / "config.json"), "hidden_size", "dim")
    for module in _read(modules):
        configuration = folder / module["path"] / "config.json"
        if module["path"] and configuration.is_file():
            known = _read(configuration)
            dimension = _number(known, "out_features", "word_embedding_dimension", "embedding_dimension") or dimension
    return dimension


def _number(known: dict[str, Any], *names: str) -> int | None:
    return next((int(known[name]) for name in names if isinstance(known.get(name), int)), None)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
