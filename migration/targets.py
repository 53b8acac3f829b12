"""Which parts are migrated, and into which tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from database.errors import GuardError, InvalidInputError
from database.migration_target import table_exists
from database.models import EmbeddingModel, active_model, list_models
from migration.receipt import printable

if TYPE_CHECKING:
    from database.connection import Database
    from migration.source import Part

INDEX_LIMIT = 4000
"""Dimensions that pgvector can index, in half precision."""

_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,47}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    Where a part goes.

    :param part: The part.
    :param model: The embedding model whose documents table it is.
    :param create: Whether model and table are not there yet.
    """

    part: Part
    model: EmbeddingModel
    create: bool


def chosen_parts(parts: Sequence[Part], names: Sequence[str]) -> tuple[list[Part], list[dict[str, str]]]:
    """
    The parts to migrate, and those that are left out, each with a reason.

    :param names: As users call them; none means all that hold something.
    :raises InvalidInputError: If there is nothing, or a name is not among them.
    :raises GuardError: If one of those chosen cannot be migrated as it is.
    """
    known = ", ".join(f"{printable(part.name)} ({part.count:,})" for part in parts) or "nothing"
    for name in names:
        if all(name not in (part.name, part.id) for part in parts):
            raise InvalidInputError(f"A collection named {name!r} was expected in the source, which holds {known}.")
    chosen, left_out = [], []
    for part in parts:
        if not part.count and not part.refusal:
            left_out.append({"name": part.name, "reason": "empty"})
        elif names and part.name not in names and part.id not in names:
            left_out.append({"name": part.name, "reason": "not chosen"})
        else:
            chosen.append(part)
    if not chosen:
        raise InvalidInputError(f"Something to migrate was expected, but the source holds {known}.")
    refused = [part for part in chosen if part.refusal]
    if refused:
        others = [f"--collection {part.name}" for part in chosen if not part.refusal]
        raise GuardError(
            " ".join(f"{printable(part.name)} cannot be migrated as it is: {part.refusal}" for part in refused),
            hint=f"Without it: {' '.join(others)}" if others else "",
        )
    return chosen, left_out


def plan_targets(
    owner: Database,
    parts: Sequence[Part],
    *,
    table: str | None,
    model: str | None,
    tables: Mapping[str, str] | None = None,
) -> list[Target]:
    """
    Where each part goes: into the table that is named, or each into one named after it.

    :param table: One table for all of them.
    :param model: The embedding model that made the vectors; `None` means the table's own, or else the active one.
    :param tables: Tables by part, of those that are settled already.
    :raises InvalidInputError: If a dimension is not the model's, or a name cannot be a table's.
    :raises GuardError: If a table is there that is none of ours.
    """
    known = list_models(owner)
    targets: list[Target] = []
    for part in parts:
        table_name = (tables or {}).get(part.id) or table or _slug(part, parts)
        found = next((other for other in known if other.table_name == table_name), None)
        if found is not None:
            _check_table(part, found, model=model)
            create = any(target.create for target in targets if target.model.table_name == table_name)
            targets.append(Target(part=part, model=found, create=create))
            continue
        new = _new_model(owner, part, table_name, known, model=model)
        targets.append(Target(part=part, model=new, create=True))
        known.append(new)
    return targets


def _check_table(part: Part, found: EmbeddingModel, *, model: str | None) -> None:
    if part.dimension not in (None, found.dimension) or model not in (None, found.model, found.name):
        raise InvalidInputError(
            f"{part.name} has vectors of {part.dimension} dimensions{f' by {model}' if model else ''}, but table "
            f"{found.table_name} is for {found.dimension} by {found.model}.",
            hint="Choose another table with --table, or other collections with --collection.",
        )


def _new_model(
    owner: Database, part: Part, table_name: str, known: Sequence[EmbeddingModel], *, model: str | None
) -> EmbeddingModel:
    """The registry's entry for a table that is made for a part."""
    if not _TABLE.match(table_name):
        raise InvalidInputError(
            f"A table's name of 1 to 48 small letters, digits and underscores was expected, but found {table_name!r}."
        )
    if table_exists(owner, table_name):
        raise GuardError(
            f"A new table {table_name} was expected for {part.name}, but there is one that belongs to no model.",
            hint="Choose another name with --table.",
        )
    active = active_model(owner)
    chosen = next((found.model for found in known if model in (found.name, found.model)), model) or active.model
    expected = next((found.dimension for found in known if found.model == chosen), None)
    dimension = _checked_dimension(part, model=chosen, expected=expected)
    described = EmbeddingModel.named(chosen, dimension=dimension, language=active.language)
    name, taken = table_name.removeprefix("documents_").replace("_", "-"), {other.name for other in known}
    if name in taken:
        name = table_name.replace("_", "-")
    return replace(described, name=name, table_name=table_name)


def _checked_dimension(part: Part, *, model: str, expected: int | None) -> int:
    dimension = part.dimension or expected
    if dimension is None:
        raise InvalidInputError(
            f"{part.name} holds no vector at all, and the dimension of {model} is not known.",
            hint="Run `python synapse.py models add MODEL` first.",
        )
    if expected not in (None, dimension):
        raise InvalidInputError(
            f"{part.name} has vectors of {dimension} dimensions, but {model} gives {expected}.",
            hint="Name the model that made them with --model, and choose its collections with --collection.",
        )
    if dimension > INDEX_LIMIT:
        raise InvalidInputError(
            f"{part.name} has vectors of {dimension:,} dimensions; pgvector can index up to {INDEX_LIMIT:,}.",
            hint="Embed the texts with another model: `python synapse.py index`.",
        )
    return dimension


def _slug(part: Part, parts: Sequence[Part]) -> str:
    """The table named after a part; with a hash of its id where another part would get the same."""
    slugs = [_cleaned(other.name) for other in parts]
    slug = _cleaned(part.name)
    if slugs.count(slug) > 1:
        slug = f"{slug[:31]}_{hashlib.sha256(part.id.encode()).hexdigest()[:6]}"
    return f"documents_{slug}"


def _cleaned(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:38] or "collection"
