"""Compose files as `docker compose config` reads them: interpolated one by one, then merged, with !reset and !override."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema.validators import validator_for

PROJECT = Path(__file__).parents[2]
REPLACED = ("command", "entrypoint", "test")
"""Lists that the later file replaces; all others are joined (compose-go's override package)."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


class _Reset:
    """What `!reset` leaves: nothing, and of the earlier file nothing either."""


class _Override:
    """What `!override` leaves: its own value alone."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Loader(yaml.SafeLoader):
    pass


def _overriding(loader: _Loader, node: yaml.Node) -> _Override:
    if isinstance(node, yaml.SequenceNode):
        return _Override(loader.construct_sequence(node, deep=True))
    return _Override(loader.construct_mapping(node, deep=True))  # type: ignore[arg-type]


_Loader.add_constructor("!reset", lambda loader, node: _Reset())
_Loader.add_constructor("!override", _overriding)


def variables(text: str) -> set[str]:
    """The variables that a compose file reads: in `${…}`, and those of an environment that are handed on by name."""
    handed_on = re.findall(r"(?m)^ +([A-Z][A-Z0-9_]+):$", text)
    return {name for name, _ in _VARIABLE.findall(text)} | set(handed_on)


def loaded(path: Path, environment: Mapping[str, str] | None = None) -> Any:
    """
    One file, interpolated.

    :param environment: What a shell and `.env` set.
    """
    return _interpolated(yaml.load(path.read_text(), _Loader), environment or {})


def merged(*paths: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Several files, the later on top of the earlier."""
    result: Any = {}
    for path in paths:
        result = _merge(result, loaded(path, environment), "")
    return dict(result)


def errors(model: Any) -> list[str]:
    """What the compose specification's schema, which check-jsonschema carries, has against a model."""
    return [error.message for error in _validator().iter_errors(_plain(model))]


@cache
def _validator() -> Any:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    return validator_for(schema)(schema)


def _merge(old: Any, new: Any, key: str) -> Any:
    if isinstance(new, _Override):
        return new.value
    if isinstance(new, dict):
        both = dict(old) if isinstance(old, dict) else {}
        for name, value in new.items():
            if isinstance(value, _Reset):
                both.pop(name, None)
            else:
                both[name] = _merge(both.get(name), value, name)
        return both
    if isinstance(new, list) and isinstance(old, list) and key not in REPLACED:
        by_target = {_target(item, key): item for item in [*old, *new]}
        return list(by_target.values())
    return old if new is None else new


def _target(item: Any, key: str) -> Any:
    """Where a volume is mounted: of two for one place, the later counts."""
    return item.split(":")[1] if key == "volumes" else item


def _plain(value: Any) -> Any:
    """A file of its own, as the schema sees it: what is taken away is not there."""
    if isinstance(value, _Override):
        return _plain(value.value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if not isinstance(item, _Reset)}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: environment.get(found[1]) or found[2] or "", value)
    if isinstance(value, dict):
        return {name: _interpolated(item, environment) for name, item in value.items()}
    if isinstance(value, _Override):
        return _Override(_interpolated(value.value, environment))
    return [_interpolated(item, environment) for item in value] if isinstance(value, list) else value
