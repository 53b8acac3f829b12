"""`evaluate`, as a user runs it; the page evaluation.md runs it to its end."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

import synapse
from database.embedded import EmbeddedServer
from tests.acceptance.program import PROJECT, Program

COLLECTION = PROJECT / "examples" / "evaluation"
SCHEMAS = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'synapse_evaluation%'"


@pytest.mark.slow
def test_ctrl_c_leaves_no_schema(program: Program, tmp_path: Path) -> None:
    program.run("database", "status")
    many = "".join(json.dumps({"_id": f"d{n}", "text": f"word{n} " * 200}) + "\n" for n in range(100_000))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(many)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "word1"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("q\td1\t1\n")
    running = program.start("evaluate", tmp_path, "--json")
    server = EmbeddedServer(program.home)
    deadline = time.monotonic() + 100
    while schemas(server) == 0:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    with psycopg.connect(server.conninfo(owner=True)):  # so that the server outlives the run
        printed, _ = running.communicate(timeout=100)
        assert running.returncode == 130
        assert json.loads(printed)["error"]["code"] == "interrupted"
        assert schemas(server) == 0
    server.stop()


def schemas(server: EmbeddedServer) -> int:
    try:
        with psycopg.connect(server.conninfo(owner=True)) as connection:
            row = connection.execute(SCHEMAS).fetchone()
            return int(row[0]) if row else 0
    except psycopg.OperationalError:
        return 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DIR is needed"),
        (["--keep", "a"], "DIR is needed"),
        ([COLLECTION, "--keep", "a", "--reuse", "b"], "give one of them"),
        ([COLLECTION, "--drop", "a"], "does nothing else"),
        ([COLLECTION, "--tune", "--qrels", "test"], "--tune chooses settings on training queries"),
        ([COLLECTION, "--plot", "a.pdf"], "takes the name of a .png file"),
        ([COLLECTION, "--qrels", "dev"], "Judgements were expected"),
        ([PROJECT / "examples"], "Judgements were expected"),
        (["nowhere"], "A folder with corpus.jsonl"),
        (["--compare", "a.json", "b.json"], "--compare takes a file"),
    ],
)
def test_what_cannot_be_used(arguments: list[object], message: str) -> None:
    done = CliRunner().invoke(synapse.app, ["evaluate", *map(str, arguments), "--json"])
    assert done.exit_code == 2
    assert message in json.loads(done.stdout)["error"]["message"]


def test_saved_results_are_compared_without_a_database(tmp_path: Path) -> None:
    for name, value in (("a", 0.5), ("b", 0.75)):
        queries = {f"q{n}": {"ndcg@10": value} for n in range(20)}
        (tmp_path / f"{name}.json").write_text(json.dumps({"strategies": {"hybrid": {"queries": queries}}}))
    done = CliRunner().invoke(synapse.app, ["evaluate", "--compare", f"{tmp_path}/a.json", f"{tmp_path}/b.json"])
    assert done.exit_code == 0
    assert "b.json:hybrid is better than" in done.stdout
    assert "by 0.250 nDCG@10 (0.250 to 0.250, p < 0.001): the difference is real." in done.stdout
