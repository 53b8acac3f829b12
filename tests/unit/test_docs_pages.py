"""The pages in docs/ against the program: settings, commands, flags, exit codes, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import migrate_from_chroma
import synapse
from commands import output
from config import VARIABLES, Settings
from database import errors
from migration.conversion import KINDS
from tests.support.compose import variables

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", PROJECT / "CHANGELOG.md", *(PROJECT / "docs").glob("*.md")]
KEPT = "What is kept, and what has a name"
CLI = PROJECT / "docs" / "cli.md"


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command of the program, by its full name."""
    if hasattr(group, "commands"):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))
    else:
        yield " ".join(path), group


COMMANDS = {
    **dict(commands(typer.main.get_command(synapse.app))),
    "migrate_from_chroma.py": typer.main.get_command(migrate_from_chroma.app),
}


def sections(path: Path) -> dict[str, str]:
    """The parts of a page below its second-level headings."""
    _, *parts = re.split(r"(?m)^## (.+)$", path.read_text(encoding="utf-8"))
    return dict(zip(parts[0::2], parts[1::2], strict=True))


def first_cells(text: str) -> list[str]:
    """What stands in the first column of tables, between backquotes."""
    return re.findall(r"(?m)^\| `([^`]+)` \|", text)


def test_the_page_has_every_command_and_no_other() -> None:
    assert set(sections(CLI)) - {"Output and exit codes"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_every_option_and_argument(name: str) -> None:
    section, command = sections(CLI)[name], COMMANDS[name]
    options = {
        option for parameter in command.params if parameter.param_type_name == "option" for option in parameter.opts
    }
    documented = {cell.split(" ")[0] for cell in first_cells(section)}
    assert documented == {option for option in options if option.startswith("--")} - {"--help"}

    usage = re.search(r"```text\npython (?:synapse\.py )?(.+)\n```", section)
    assert usage, f"{name} has no usage line"
    assert usage[1].startswith(name)
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    words = usage[1].removeprefix(name).removesuffix(" [options]").split()
    assert len(words) == len(arguments)
    for word, argument in zip(words, arguments, strict=True):
        assert word.startswith("[") == (not argument.required), word
        assert ("…" in word) == (argument.nargs == -1), word


def test_the_page_has_every_exit_code() -> None:
    codes = {getattr(errors, name) for name in ("DONE", "FAILED", "USAGE", "PARTLY_DONE", "REFUSED", "BELOW_THRESHOLD")}
    table = sections(CLI)["Output and exit codes"]
    assert {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", table)} == codes | {output.INTERRUPTED}


def test_the_page_has_every_error_code() -> None:
    def tree(kind: type[errors.SynapseError]) -> Iterator[type[errors.SynapseError]]:
        yield kind
        for below in kind.__subclasses__():
            if below.__module__ == "database.errors":
                yield from tree(below)

    known = {kind.code: kind.exit_code for kind in tree(errors.SynapseError) if kind is not errors.SynapseError}
    table = sections(CLI)["Output and exit codes"]
    documented = {code: int(number) for code, number in re.findall(r"(?m)^\| `(\w+)` \| (\d+) \|", table)}
    assert documented == known | {"system": 1, "internal": 1, "interrupted": output.INTERRUPTED}


def test_every_setting_is_on_its_page_with_its_default() -> None:
    text = (PROJECT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"(?m)^\| `([A-Z0-9_]+)` \| ([^|]+) \|", text))
    files = (PROJECT / "docker-compose.yml", *(PROJECT / "deploy").glob("compose.*.yml"))
    compose = set().union(*(variables(path.read_text(encoding="utf-8")) for path in files)) - set(VARIABLES.values())
    assert set(rows) == set(VARIABLES.values()) | compose
    for name, variable in VARIABLES.items():
        default, cell = getattr(Settings(), name), rows[variable]
        if default is None or name == "home":
            assert not re.fullmatch(r"`[^`]*`", cell) or cell.strip("`") in VARIABLES.values(), variable
        else:
            assert cell == f"`{str(default).lower() if isinstance(default, bool) else default}`", variable


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{path.name} links to {target}"
        if anchor:
            headings = re.findall(r"(?m)^#+ (.+)$", linked.read_text(encoding="utf-8"))
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{path.name} links to {target}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_fit_an_editor(path: Path) -> None:
    fence = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence ^= line.startswith("```")
        assert fence or line.startswith("|") or len(line) <= 130, f"{path.name}:{number}"


def test_docs_index_lists_every_page() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for path in (PROJECT / "docs").glob("*.md"):
        assert f"docs/{path.name}" in readme, path.name


TROUBLESHOOTING = PROJECT / "docs" / "troubleshooting.md"
EXPLAINED = (
    "ConfigurationError",
    "GuardError",
    "DatabaseError",
    "DatabaseUnavailableError",
    "DataRefusedError",
    "ExtensionMissingError",
    "SchemaError",
    "StoreError",
)
"""Errors whose every message is explained; those about what was typed explain themselves."""


def written(node: ast.expr) -> str | None:
    """The text of a literal, with `…` for what it formats."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def sources() -> Iterator[ast.AST]:
    yield ast.parse((PROJECT / "config.py").read_text(encoding="utf-8"))
    for room in ("commands", "evaluation", "pipelines", "components", "database"):
        for path in (PROJECT / room).rglob("*.py"):
            yield ast.parse(path.read_text(encoding="utf-8"))


def messages() -> Iterator[str]:
    """What the errors above say, wherever they are raised."""
    for node in (node for tree in sources() for node in ast.walk(tree)):
        if not isinstance(node, ast.Call) or not node.args or (text := written(node.args[0])) is None:
            continue
        if isinstance(node.func, ast.Name) and node.func.id in EXPLAINED:
            yield text
        elif ast.unparse(node.func) == "self._error":  # the language model's
            yield f"The language model's server … {text}."


def test_every_message_is_explained_and_no_other() -> None:
    explained = re.findall(r"(?m)^### (.+)$", TROUBLESHOOTING.read_text(encoding="utf-8"))
    assert set(explained) == {text.strip() for text in messages()}
    assert len(set(explained)) == len(explained)


def test_messages_of_migrations_stand_on_their_pages() -> None:
    """Of each message of a guard or the schema, the first words of those that it always has."""
    pages = [path.read_text(encoding="utf-8") for path in (PROJECT / "docs").glob("migrating*.md")]
    text, missing = re.sub(r"[`\s]+", " ", " ".join(pages)), list[str]()
    for path in (PROJECT / "migration").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in EXPLAINED
                and node.args
            ):
                longest = max((written(node.args[0]) or "").split("…"), key=len).strip(" ,.:;")
                missing += [] if " ".join(longest.split()[:4]) in text else [f"{path.name}: {written(node.args[0])}"]
    assert not missing


def test_kinds_of_change_are_those_of_the_engine() -> None:
    table = dict(re.findall(r"(?m)^\| `(\w+)` \| (.+) \|$", sections(PROJECT / "docs" / "migrating.md")[KEPT]))
    assert table == KINDS


def test_reasons_are_those_that_files_are_given() -> None:
    known = {text for tree in sources() for node in ast.walk(tree) if (text := written(node))}  # type: ignore[arg-type]
    table = sections(TROUBLESHOOTING)["Files that are kept out"]
    for reason in re.findall(r"(?m)^\| (.+?) \|", table)[1:]:
        expected = ".*".join(map(re.escape, reason.split("…"))) if reason != "---" else ".*"
        assert any(re.fullmatch(expected, text) for text in known), reason
