"""
Every command in the README and in docs/ is run, in order and in one home, and its output compared.

Blocks marked `console` hold commands after `$ ` and what they print, where `…` stands for anything and any number for any
other; a last line `[exit code N]` says how the command ends, if not with 0. Blocks marked `python` are run as programs. Blocks marked `bash` cannot run here, each for a reason that stands below.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.program import PROJECT, Program

FIRST = PROJECT / "docs" / "indexing.md"  # the other pages ask for what it indexes
PAGES = [
    FIRST,
    *sorted(set((PROJECT / "docs").glob("*.md")) - {FIRST}),
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
]
NOT_RUN = {
    "make demo": "is run by continuous integration, like this test",
    ". .venv/bin/activate": "shows a folder of the reader's",
    "sh deploy/make_env.sh": "needs Docker; tests/acceptance/test_first_start.py",
    "sh deploy/make_secrets.sh": "needs Docker; tests/unit/test_compose.py",
    "docker compose": "needs Docker; tests/acceptance/test_image.py",
    "docker build": "needs Docker; likewise",
    "export DATABASE_OWNER_URL=": "needs a managed server",
    "cp deploy/supabase/migrations": "needs Supabase's CLI; tests/integration/test_supabase.py",
    "export LLM_BASE_URL=": "needs a language model; tests/integration has a server of its own",
    "python synapse.py index reports": "shows a folder of the reader's",
    "python synapse.py evaluate my-questions": "shows a folder of the reader's; tests/unit/test_evaluation.py",
    "python migrate_from_chroma.py ~/chroma": "shows a folder of the reader's",
    "python synapse.py migrate sqlite": "needs a database of the reader's; tests/integration/test_migrate_sqlite.py",
    "python synapse.py migrate bytea": "needs a table of the reader's; tests/integration/test_migrate_bytea.py",
    "python synapse.py tenants create acme": "shows a folder of the reader's; tests/integration/test_tenancy.py",
    "python synapse.py database downgrade": "takes away what other pages need; tests/acceptance/test_database_commands.py",
    "make serve": "goes on until it is stopped; tests/acceptance/test_serve_command.py",
    "pip install -r requirements-serve.txt": "goes on until it is stopped; likewise",
    "SYNAPSE_SCREENSHOTS=": "needs a browser; tests/system_page makes the same pictures",
    "pip install -r requirements-ray.txt": "needs Ray and a cluster; tests/integration/test_ray_indexing.py",
    "python synapse.py index documents --watch": "goes on until it is stopped; tests/integration/test_watch.py",
    "python synapse.py database backup backups": "writes into a folder of the reader's; tests/acceptance/test_copies_commands.py",
    "python synapse.py database restore backups": "needs a server; likewise",
    "python synapse.py database move --to postgresql": "needs a server; likewise",
    "SYNAPSE_HOME=.synapse-new": "moves the reader's data; likewise",
    "docker run --detach --name synapse-18": "needs Docker; tests/integration/test_major_upgrade.py does the same without",
}
"""First words of the `bash` blocks, and why they are not run."""

_BLOCK = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")


def blocks(kind: str) -> list[tuple[str, str]]:
    """All blocks of a kind, each with the name of its page."""
    found = [(page, *block) for page in PAGES for block in _BLOCK.findall(page.read_text(encoding="utf-8"))]
    return [(page.name, text) for page, marked, text in found if marked == kind]


def steps(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it should print."""
    command, expected = "", list[str]()
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, expected
            command, expected = line[2:], []
        else:
            expected.append(line)
    yield command, expected


STEPS = [(page, command, expected) for page, text in blocks("console") for command, expected in steps(text)]


@pytest.fixture(scope="module")
def home(short_folder: Path) -> Iterator[Program]:
    """The program with one home for all pages."""
    folder = short_folder / "docs-home"
    yield Program(home=folder, environment={})
    shutil.rmtree(folder, ignore_errors=True)


def pattern(expected: list[str]) -> str:
    """Lines as a regular expression: `…` is anything, a number any number, spaces any spaces."""
    lines = ["(?:.*\n)*?" if line == "…" else _line_pattern(line) + "\n" for line in expected]
    return "".join(lines)


def _line_pattern(line: str) -> str:
    kinds = {"…": ".*", "0": r"\d+(?:[.,]\d+)*", " ": r"\s+"}
    parts = re.split(r"(…|\d+(?:[.,]\d+)*|\s+)", line.rstrip())
    return (
        "".join(
            kinds["0" if part[0].isdigit() else " " if part.isspace() else part] if number % 2 else re.escape(part)
            for number, part in enumerate(parts)
        )
        + r"\s*"
    )


@pytest.mark.parametrize(
    ("page", "command", "expected"), STEPS, ids=[f"{page}: {command}" for page, command, _ in STEPS]
)
def test_commands(home: Program, page: str, command: str, expected: list[str]) -> None:
    python, door, *arguments = shlex.split(command)
    assert python == "python"
    assert door in ("synapse.py", "migrate_from_chroma.py")
    code = re.fullmatch(r"\[exit code (\d+)\]", expected[-1]) if expected else None
    done = subprocess.run(
        [sys.executable, door, *arguments],
        cwd=PROJECT,
        env=home.full_environment(),
        input="".join(f"{line[2:]}\n" for line in expected if line.startswith("> ")),  # as chat echoes what is typed
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == (int(code[1]) if code else 0), done.stderr
    assert re.fullmatch(pattern(expected[:-1] if code else expected), done.stdout), (
        f"{page} shows other than what it prints:\n{done.stdout}"
    )


def test_programs(home: Program) -> None:
    """All of them in one process, as loading the model is most of their time."""
    together = "\n".join(
        f"exec(compile({text!r}, {page!r}, 'exec'), {{'__name__': '__main__'}})" for page, text in blocks("python")
    )
    environment = home.full_environment() | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", together]
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr


SHOWN_OBJECTS = {
    "index": ["docs", "examples/documents"],
    "ask": ["What is a group to pay?"],
    "search": ["dome"],
    "evaluate": ["examples/evaluation"],
    "recall": ["--sample", "2"],
    "documents list": ["docs"],
    "doctor": [],
    "documents show": ["docs/cli.md"],
    "documents fields": [],
    "fields declare": ["year", "number"],
    "fields list": [],
    "fields drop": ["year"],
    "models list": [],
    "models add": ["BAAI/bge-small-en-v1.5", "--dimension", "384"],
    "models switch": ["all-minilm-l6-v2"],
    "models drop": ["bge-small-en-v1.5", "--yes"],
    "database upgrade": [],
    "database status": [],
    "database reindex": [],
    "database tune": ["--sample", "2"],
    "database backup": ["{home}/docs.dump"],
    "documents delete": ["docs/cli.md", "--yes"],
    "users create": ["bea"],
    "users list": [],
    "users password": ["bea", "--remove"],
    "keys create": ["bea"],
    "keys list": [],
    "usage": [],
    "status": [],
    "conversations list": [],
    "conversations export": ["--user", "bea"],
    "users delete": ["bea", "--yes"],
}
"""The commands with a JSON object on the page, in an order in which they work, and what they are given."""

_RUN_ALL = """
import json, sys
from typer.testing import CliRunner
import synapse
for arguments in json.load(sys.stdin):
    done = CliRunner().invoke(synapse.app, arguments)
    print(json.dumps([done.exit_code, json.loads(done.stdout)]))
"""


def test_json_objects(home: Program) -> None:
    """Every JSON object on the page has the keys and types of the one that the command prints."""
    text = (PROJECT / "docs" / "cli.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"(?m)^## (.+)$", text)
    shown = {
        name: re.findall(r"(?ms)^```json\n(.*?)^```$", part) for name, part in zip(parts[::2], parts[1::2], strict=True)
    }
    assert {name for name, found in shown.items() if found} == {*SHOWN_OBJECTS, "Output and exit codes"}
    arguments = [
        [*name.split(), *(part.format(home=home.home) for part in given), "--json"]
        for name, given in SHOWN_OBJECTS.items()
    ]
    expected = [shown[name][0] for name in SHOWN_OBJECTS]
    arguments += [["index", "docs", "--dry-run", "--json"], ["models", "drop", "nobody", "--json"]]
    arguments += [["evaluate", "examples/evaluation", "--tune", "--qrels", "train", "--json"]]
    expected += [shown["index"][1], shown["Output and exit codes"][0], shown["evaluate"][1]]

    done = subprocess.run(
        [sys.executable, "-c", _RUN_ALL],
        cwd=PROJECT,
        env=home.full_environment(),
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for command, page, line in zip(arguments, expected, done.stdout.splitlines(), strict=True):
        code, printed = json.loads(line)
        assert code == (2 if "nobody" in command else 0), line
        compare(json.loads(page), printed, where=" ".join(command))


def compare(page: Any, printed: Any, *, where: str) -> None:
    """An empty object or list on the page stands for any; of a list, the first item stands for all."""
    if isinstance(page, dict) and isinstance(printed, dict):
        if where.endswith("timings_ms"):
            assert set(page) <= set(printed)
        elif page and not where.endswith("skipped"):
            assert set(page) == set(printed), where
            for key in page:
                compare(page[key], printed[key], where=f"{where} {key}")
    elif isinstance(page, list) and isinstance(printed, list):
        if page and printed:
            compare(page[0], printed[0], where=where)
    elif page is not None and printed is not None:
        numbers = isinstance(page, int | float) and isinstance(printed, int | float)
        assert numbers or type(page) is type(printed), f"{where}: {printed!r}"


@pytest.mark.parametrize(("page", "text"), blocks("bash"), ids=[page for page, _ in blocks("bash")])
def test_what_is_not_run_has_a_reason(page: str, text: str) -> None:
    assert any(text.startswith(words) for words in NOT_RUN), f"{page} has a block that nobody runs:\n{text}"


def test_every_reason_is_needed() -> None:
    texts = [text for _, text in blocks("bash")]
    for words in NOT_RUN:
        assert any(text.startswith(words) for text in texts), words


def test_no_block_escapes() -> None:
    for page in PAGES:
        for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
            assert kind in ("console", "python", "bash", "json", "text", ""), f"{page.name} has a block marked {kind}"
            if kind in ("", "json"):
                assert "synapse.py " not in text, f"{page.name} shows a command that nobody runs:\n{text}"
