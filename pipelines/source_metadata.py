"""
Metadata that comes from outside a file's bytes: path patterns, sidecars, `--meta`.

The more deliberate wins: what the file says of itself < path pattern < sidecar `NAME.meta.json` < `--meta`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.typed_values import typed
from database.errors import InvalidInputError

_REST = ("…", "...", "**")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, kw_only=True)
class OutsideMetadata:
    """
    Where this run's metadata comes from.

    :param given: What holds for every file of the run, from `--meta`.
    :param patterns: Tried in order on a file's path below its root; the first that matches gives its values.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    patterns: Sequence[PathPattern] = ()

    def of(self, relative: str, sidecar: str | None) -> dict[str, Any]:
        """
        The metadata of one file.

        :param relative: Its path below its root.
        :param sidecar: Path of its sidecar, if it has one.
        :raises InvalidInputError: If the sidecar cannot be read or holds no JSON object.
        """
        matched = next((values for pattern in self.patterns if (values := pattern.match(relative)) is not None), {})
        beside = read_sidecar(sidecar) if sidecar else {}
        return {**matched, **beside, **self.given}


class PathPattern:
    """
    Names the parts of a path, as in `{team}/{year}/…`.

    `{name}` stands for one or more characters within one part of the path and becomes metadata, `*` for the same
    without a name, a last `…` (or `...`, `**`) for any remaining parts. Without it the whole path must match, file
    name included. Values are typed as `--meta` types them.

    :param pattern: The pattern, relative to a root, with `/` between its parts.
    :raises InvalidInputError: If it names nothing, names something twice, or a name is empty.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        names = _PLACEHOLDER.findall(pattern)
        if not names or len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise InvalidInputError(
                f"A path pattern with different names in braces was expected, but it is {pattern!r}.",
                hint="Write it like '{team}/{year}/…'.",
            )
        self._names = names
        *parts, last = pattern.strip("/").split("/")
        if last in _REST:
            expression = "/".join(map(_part_expression, parts)) + "/.+"
        else:
            expression = "/".join(map(_part_expression, [*parts, last]))
        self._expression = re.compile(expression, re.DOTALL)

    def __repr__(self) -> str:
        return f"PathPattern({self.pattern!r})"

    def match(self, relative: str) -> dict[str, Any] | None:
        """
        The values of a path, or `None` if it does not match.

        :param relative: A path below a root.
        """
        found = self._expression.fullmatch(relative.replace(os.sep, "/"))
        return None if found is None else dict(zip(self._names, map(typed, found.groups()), strict=True))


def _part_expression(part: str) -> str:
    pieces = re.split(r"(\{[^{}]*\}|\*)", part)
    return "".join("[^/]+" if p == "*" else "([^/]+?)" if p.startswith("{") else re.escape(p) for p in pieces)


def parse_given(pairs: Iterable[str]) -> dict[str, Any]:
    """
    Read `key=value` pairs.

    :param pairs: Each with a key that is not empty; the later of two equal keys wins.
    :raises InvalidInputError: If one has no `=` or no key, or its value cannot be stored.
    """
    given = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise InvalidInputError(
                f"--meta expects key=value, but got {pair!r}.", hint="For example --meta year=2024."
            )
        given[key.strip()] = _typed_given(value.strip())
    if problem := unstorable(given):
        raise InvalidInputError(f"--meta expects values that JSON can hold, but {problem}.")
    return given


def _typed_given(text: str) -> Any:
    """What a text stands for, JSON's lists, objects, quoted strings and null included."""
    if text == "null":
        return None
    if text[:1] in ("[", "{", '"'):
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            return text
    return typed(text)


def read_sidecar(path: str) -> dict[str, Any]:
    """
    Read the metadata that stands beside a file.

    :param path: A UTF-8 file with one JSON object.
    :raises InvalidInputError: If it is anything else.
    """
    name = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read().decode("utf-8-sig"), parse_constant=_refuse_constant)
    except OSError as exc:
        raise InvalidInputError(f"{name} cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{name} is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise InvalidInputError(f"{name} must hold a JSON object, but holds {type(found).__name__}")
    if problem := unstorable(found):
        raise InvalidInputError(f"{name} cannot be stored: {problem}")
    return found


def unstorable(value: Any) -> str:
    """Why PostgreSQL's jsonb cannot hold a JSON value; empty if it can."""
    return next(filter(None, map(_unstorable_scalar, _scalars(value))), "")


def _scalars(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as found:
                waiting += [*found.keys(), *found.values()]
            case list() as found:
                waiting += found
            case scalar:
                yield scalar


def _unstorable_scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no JSON number"
    if isinstance(value, str) and "\0" in value:
        return "a text holds the character U+0000"
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return "a text holds half of a surrogate pair"
    return ""


def metadata_hash(meta: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of some metadata; what is not JSON counts as its text."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")
