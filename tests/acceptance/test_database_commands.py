"""`database` and `models`, as a user runs them."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest

from database.embedded import EmbeddedServer
from tests.acceptance.program import Program


def test_status_of_the_embedded_database(program: Program) -> None:
    status = program.json("database", "status")
    assert status["embedded"] is True
    assert status["schema_version"] == status["expected_schema_version"]
    assert status["superuser"] is False
    assert "documents_all_minilm_l6_v2" in {table["name"] for table in status["tables"]}

    text = program.run("database", "status").stdout
    assert "an embedded server" in text
    assert "pgvector 0.8" in text


def test_upgrade_is_harmless_when_nothing_is_to_do(program: Program) -> None:
    done = program.json("database", "upgrade")
    assert done["before"] == done["after"]


@pytest.mark.slow
def test_back_and_forth(program: Program) -> None:
    server = EmbeddedServer(program.home)
    server.start()
    with psycopg.connect(server.conninfo(owner=True), autocommit=True) as connection:
        connection.execute("INSERT INTO users (tenant, name) VALUES ('default', 'somebody')")
    server.stop()
    refused = program.run("database", "downgrade", "0004")
    assert refused.returncode == 4
    assert "has no place for what is in" in refused.stderr
    assert "1 rows of users" in refused.stderr

    done = program.run("database", "downgrade", "0004", "--yes")
    assert done.stdout == "Took the schema back from version 0006 to 0004.\n  gone: 1 rows of users\n"
    assert "0005  tables of conversations\n" in done.stderr
    # The embedded server upgrades itself, and so finds nothing to do.
    assert program.json("database", "upgrade", "--finish") == {
        "before": "0006",
        "after": "0006",
        "application_login": False,
        "old_programs": False,
    }
    assert program.json("database", "downgrade", "0005") == {"before": "0006", "after": "0005", "lost": {}}
    assert program.json("database", "downgrade", "0007", exit_code=1)["error"]["code"] == "schema"


@pytest.mark.slow
def test_models(program: Program) -> None:
    assert [model["name"] for model in program.json("models", "list")["models"]] == ["all-minilm-l6-v2"]
    added = program.json("models", "add", "org/Some-Model_v2", "--dimension", 3)
    assert (added["name"], added["table_name"], added["active"]) == ("some-model-v2", "documents_some_model_v2", False)

    refused = program.json("models", "add", "org/Some-Model_v2", "--dimension", 3, exit_code=2)
    assert refused["error"]["code"] == "invalid_input"
    assert program.json("models", "switch", "some-model-v2") == {"active": "some-model-v2"}
    assert program.json("models", "drop", "some-model-v2", exit_code=4)["error"]["code"] == "refused"
    program.json("models", "switch", "all-minilm-l6-v2")
    assert program.json("models", "drop", "some-model-v2", exit_code=4)["error"]["hint"] == "Repeat with --yes."
    assert program.json("models", "drop", "some-model-v2", "--yes")["documents"] == 0
    assert len(program.json("models", "list")["models"]) == 1


def test_a_server_that_is_down(program: Program) -> None:
    elsewhere = replace(program, environment={"DATABASE_URL": "postgresql://u:secret@127.0.0.1:9/d"})
    for command in (("database", "status"), ("models", "list")):
        done = elsewhere.run(*command)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert "nothing listens there" in done.stderr
        assert "secret" not in done.stderr
        assert elsewhere.json(*command, exit_code=1)["error"]["code"] == "database_unavailable"


def test_a_setting_that_cannot_be_used(program: Program) -> None:
    done = replace(program, environment={"SYNAPSE_TOP_K": "many"}).run("database", "status")
    assert done.returncode == 2
    assert done.stderr == "SYNAPSE_TOP_K must be a number, but is 'many'.\n"


def test_indexes_are_rebuilt_and_tuned(program: Program) -> None:
    assert program.run("tenants", "create", "acme").returncode == 0
    done = program.json("database", "reindex", "--all-tenants", "--m", "12")["reindexed"]
    assert [(one["tenant"], "m='12'" in one["definition"]) for one in done] == [("acme", True), ("default", True)]
    (done,) = program.json("database", "reindex", "--tenant", "acme", "--where", 'year >= 2020 and lang == "en"')[
        "reindexed"
    ]
    assert (done["tenant"], done["rows"]) == ("acme", 0)
    assert "_where_" in done["index"]

    text = program.run("database", "reindex", "--index", "documents_all_minilm_l6_v2_keywords_terms").stdout
    assert text.startswith("Rebuilt documents_all_minilm_l6_v2_keywords_terms in ")
    for arguments in (
        ["--index", "documents_all_minilm_l6_v2_pkey", "--half"],
        ["--tenant", "acme", "--all-tenants"],
        ["--memory", "much"],
        ["--type", "hash"],
        ["--where", "year >"],
    ):
        assert program.run("database", "reindex", *arguments).returncode == 2, arguments

    tuned = program.json("database", "tune", "--apply")
    assert (tuned["rows"], tuned["ef_search"], tuned["certificate"]) == (0, None, None)
    assert len(tuned["applied"]) == 2
    assert "Nothing was changed" in program.run("database", "tune").stdout
