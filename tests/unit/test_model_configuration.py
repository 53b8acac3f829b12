"""A model's files, looked at without loading it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.model_configuration import model_files
from components.model_files import DEFAULT_MODEL


def written(folder: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


MODULES = [{"path": ""}, {"path": "1_Pooling"}]
POOLING = {"1_Pooling/config.json": {"word_embedding_dimension": 768}}


def test_the_default_model() -> None:
    found = model_files(DEFAULT_MODEL)
    assert (found.dimension, found.problem) == (384, None)


@pytest.mark.parametrize(
    ("files", "dimension"),
    [
        ({"modules.json": MODULES, **POOLING}, 768),
        (
            {"modules.json": [*MODULES, {"path": "2_Dense"}], **POOLING, "2_Dense/config.json": {"out_features": 512}},
            512,
        ),
        ({"modules.json": [*MODULES, {"path": "2_Normalize"}], **POOLING}, 768),
        ({"config.json": {"hidden_size": 1024}}, 1024),
        ({"config.json": {"architectures": []}}, None),
    ],
    ids=["pooling", "dense", "normalize", "transformer", "unknown"],
)
def test_the_dimension_is_what_the_last_module_gives(
    tmp_path: Path, files: dict[str, Any], dimension: int | None
) -> None:
    assert model_files(str(written(tmp_path, files))).dimension == dimension


def test_models_of_the_hub(tmp_path: Path) -> None:
    kept = tmp_path / "models--org--name"
    written(kept / "snapshots" / "abc", {"modules.json": MODULES, **POOLING})
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("abc\n")
    assert model_files("org/name", cache=tmp_path).dimension == 768
    absent = model_files("org/other", cache=tmp_path)
    assert absent.downloadable
    assert absent.problem == "it is fetched when it is used"
    offline = model_files("org/other", cache=tmp_path, offline=True)
    assert not offline.downloadable
    assert "HF_HUB_OFFLINE" in str(offline.problem)


def test_files_that_cannot_be_loaded(tmp_path: Path) -> None:
    assert "no folder" in str(model_files(str(tmp_path / "absent")).problem)
    folder = written(tmp_path / "model", {"modules.json": MODULES, **POOLING})
    (folder / "modules.json").write_text("{")
    assert "cannot be read" in str(model_files(str(folder)).problem)
    (folder / "model.safetensors").unlink()
    assert "no weights" in str(model_files(str(folder)).problem)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, components.model_configuration; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"
