"""Settings: where they come from, what is refused, what is never shown."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from config import VARIABLES, Settings
from database.errors import ConfigurationError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, "")


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_defaults_need_nothing(env_file: Path) -> None:
    settings = Settings.from_env(env_file)
    assert settings.database_url is None
    assert not settings.has_language_model
    assert settings.home.name == ".synapse"


def test_an_env_file_is_read(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYNAPSE_TOP_K")
    monkeypatch.delenv("LLM_BASE_URL")
    env_file.write_text("SYNAPSE_TOP_K=3\nLLM_BASE_URL=http://localhost:11434/v1\n")
    settings = Settings.from_env(env_file)
    assert (settings.top_k, settings.llm_base_url) == (3, "http://localhost:11434/v1")
    assert settings.has_language_model


def test_the_environment_wins_over_the_file(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("SYNAPSE_TOP_K=3\n")
    monkeypatch.setenv("SYNAPSE_TOP_K", "4")
    assert Settings.from_env(env_file).top_k == 4


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("SYNAPSE_TOP_K", "many", "SYNAPSE_TOP_K must be a number, but is 'many'"),
        ("SYNAPSE_TOP_K", "0", "top_k must be at least 1"),
        ("HNSW_EF_SEARCH", "1001", "between 1 and 1000"),
        ("EMBEDDING_PRECISION", "fp8", "must be one of auto, fp32, bf16, fp16, but is 'fp8'"),
        ("KEYWORD_WEIGHT", "1.5", "keyword_weight must be between 0 and 1, but is 1.5"),
        ("BM25_K1", "much", "BM25_K1 must be a number, but is 'much'"),
        ("DIVERSITY", "nan", "diversity must be between 0 and 1"),
        ("CONTEXT_WINDOW", "-1", "context_window must be between 0 and 10"),
        ("LLM_TIMEOUT", "nan", "above 0"),
        ("LLM_TIMEOUT", "-1", "above 0"),
        ("HAYSTACK_TELEMETRY_ENABLED", "perhaps", "true or false"),
    ],
)
def test_values_that_cannot_be_used(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, message: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError, match=message):
        Settings.from_env(env_file)


def test_every_variable_sets_its_field(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings()
    for name, variable in VARIABLES.items():
        kind = next(str(field.type) for field in fields(Settings) if field.name == name)
        text = {"int": "999", "float": "0.5", "bool": "true", "Path": "/elsewhere"}.get(
            kind.removesuffix(" | None"), "text"
        )
        text = {"feedback": "3", "context_window": "2", "embedding_precision": "fp32"}.get(name, text)
        with monkeypatch.context() as patched:
            patched.setenv(variable, text)
            changed = Settings.from_env(env_file)
        assert getattr(changed, name) != getattr(default, name), variable
        others = {field.name for field in fields(Settings)} - {name, "from_environment"}
        assert {other: getattr(changed, other) for other in others} == {
            other: getattr(default, other) for other in others
        }


def test_secrets_are_never_shown() -> None:
    settings = Settings(database_url="postgresql://u:s3cret@h/d", llm_api_key="s3cret", database_owner_url="p:s3cret@h")
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().top_k = 3  # type: ignore[misc]
