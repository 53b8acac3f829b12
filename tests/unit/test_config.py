"""Settings: where they come from, what is refused, what is never shown."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from config import SECRETS, VARIABLES, Settings
from database.errors import ConfigurationError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*VARIABLES.values(), *(f"{secret}_FILE" for secret in SECRETS)):
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


def test_secrets_are_those_that_are_not_shown() -> None:
    assert set(SECRETS) >= {"DATABASE_URL", "DATABASE_OWNER_URL", "OPENAI_API_KEY", "SERVE_PAGE_SECRET"}
    settings = Settings(**{name: "s3cret" for name, variable in VARIABLES.items() if variable in SECRETS})
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize("variable", SECRETS)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"], ids=["bare", "unix", "windows"])
def test_a_secret_may_stand_in_a_file(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, end: str
) -> None:
    (tmp_path / "secret").write_bytes(f"p\u00e4ss word {end}".encode())
    monkeypatch.setenv(f"{variable}_FILE", str(tmp_path / "secret"))
    name = next(name for name, other in VARIABLES.items() if other == variable)
    for _ in range(2):  # read again, as by a program that asks twice
        assert getattr(Settings.from_env(env_file), name) == "p\u00e4ss word "


def test_the_file_of_a_secret_may_stand_in_the_env_file(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE"):
        monkeypatch.delenv(variable)
    (tmp_path / "key").write_text("sk-1\n")
    env_file.write_text(f"OPENAI_API_KEY_FILE={tmp_path / 'key'}\n")
    for _ in range(2):
        assert Settings.from_env(env_file).llm_api_key == "sk-1"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"one\ntwo\n", "has several lines"),
        (b"\xff\xfe", "it is not text in UTF-8"),
    ],
    ids=["missing", "empty", "blank", "two lines", "binary"],
)
def test_a_file_that_holds_no_secret_is_refused(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("DATABASE_URL_FILE", str(path))
    with pytest.raises(ConfigurationError, match=reason) as refused:
        Settings.from_env(env_file)
    assert refused.value.message.startswith("DATABASE_URL_FILE was expected to name a file")
    assert str(path) in refused.value.message
    assert "two" not in refused.value.message.replace(str(path), "")


def test_a_secret_and_its_file_are_one_too_many(
    env_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("s3cret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:0ther@h/d")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(ConfigurationError, match="DATABASE_URL or DATABASE_URL_FILE was expected, but both") as refused:
        Settings.from_env(env_file)
    assert "0ther" not in str(refused.value)


def test_secrets_are_never_shown() -> None:
    url = "postgresql://u:s3cret@h/d"
    settings = Settings(database_url=url, llm_api_key="s3cret", database_owner_url="p:s3cret@h", database_read_url=url)
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().top_k = 3  # type: ignore[misc]
