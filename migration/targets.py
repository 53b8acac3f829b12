"""Which parts are migrated, and into which tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from database.errors import GuardError, InvalidInputError
from database.migration_target import table_exists
from database.models import EmbeddingModel, active_model, list_models

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
    known = ", ".join(f"{part.name} ({part.count:,})" for part in parts) or "nothing"
    for name in names:
        if all(name not in (part.name, part.id) for part in parts):
            raise InvalidInputError(f"A collection named {name!r} was expected in the source, which holds {known}.")
    chosen, left_out = [], []
    for part in parts:
        if names and part.name not in names and part.id not in names:
            left_out.append({"name": part.name, "reason": "not chosen"})
        elif not part.count and not part.refusal:
            left_out.append({"name": part.name, "reason": "empty"})
        else:
            chosen.append(part)
    if not chosen:
        raise InvalidInputError(f"Something to migrate was expected, but the source holds {known}.")
    refused = [part for part in chosen if part.refusal]
    if refused:
        others = [f"--collection {part.name}" for part in chosen if not part.refusal]
        raise GuardError(
            " ".join(f"{part.name} cannot be migrated as it is: {part.refusal}" for part in refused),
            hint=f"Without it: {' '.join(others)}" if others else "",
        )
    return chosen, left_out


def plan_targets(owner: Database, parts: Sequence[Part], *, table: str | None, model: str | None) -> list[Target]:
    """
    Where each part goes: into the table that is named, or each into one named after it.

    :param table: One table for all of them.
    :param model: The embedding model that made the vectors; `None` means the active one.
    :raises InvalidInputError: If a dimension is not the model's, or a name cannot be a table's.
    :raises GuardError: If a table is there that is none of ours.
    """
    known = list_models(owner)
    active = active_model(owner)
    chosen = next((found.model for found in known if model in (found.name, found.model)), model) or active.model
    expected = next((found.dimension for found in known if found.model == chosen), None)
    targets: list[Target] = []
    for part in parts:
        dimension = part.dimension or expected
        _check_dimension(part, dimension, model=chosen, expected=expected, named=model is not None)
        assert dimension is not None
        described = EmbeddingModel.named(chosen, dimension=dimension, language=active.language)
        table_name = table or _slug(part, parts)
        name = table_name.removeprefix("documents_").replace("_", "-")
        target = _target(owner, part, replace(described, table_name=table_name, name=name), known)
        targets.append(target)
        if target.create and all(target.model.table_name != found.table_name for found in known):
            known.append(target.model)
    first: dict[str, Target] = {}
    return [
        replace(target, create=first.setdefault(target.model.table_name, target).create) for target in targets
    ]  # of several parts of one new table, each knows that the run makes it


def _target(owner: Database, part: Part, model: EmbeddingModel, known: Sequence[EmbeddingModel]) -> Target:
    if not _TABLE.match(model.table_name):
        raise InvalidInputError(
            f"A table's name of 1 to 48 small letters, digits and underscores was expected, but found {model.table_name!r}."
        )
    found = next((other for other in known if other.table_name == model.table_name), None)
    if found is None:
        if table_exists(owner, model.table_name):
            raise GuardError(
                f"A new table {model.table_name} was expected for {part.name}, but there is one that belongs to no model.",
                hint="Choose another name with --table.",
            )
        taken = {other.name for other in known}
        name = model.name if model.name not in taken else f"{model.name}-{model.table_name.replace('_', '-')}"
        return Target(part=part, model=replace(model, name=name), create=True)
    if (found.dimension, found.model) != (model.dimension, model.model):
        raise InvalidInputError(
            f"{part.name} has vectors of {model.dimension} dimensions by {model.model}, but table {found.table_name} is "
            f"for {found.dimension} by {found.model}.",
            hint="Choose another table with --table, or other collections with --collection.",
        )
    return Target(part=part, model=found, create=False)


def _check_dimension(part: Part, dimension: int | None, *, model: str, expected: int | None, named: bool) -> None:
    if dimension is None:
        raise InvalidInputError(
            f"{part.name} holds no vector at all, and the dimension of {model} is not known.",
            hint="Run `python synapse.py models add MODEL` first.",
        )
    if expected not in (None, dimension):
        raise InvalidInputError(
            f"{part.name} has vectors of {dimension} dimensions, but {model} gives {expected}.",
            hint="Name the model that made them with --model, or choose collections with --collection."
            if not named
            else "Choose the collections of this model with --collection.",
        )
    if dimension > INDEX_LIMIT:
        raise InvalidInputError(
            f"{part.name} has vectors of {dimension:,} dimensions; pgvector can index up to {INDEX_LIMIT:,}.",
            hint="Embed the texts with another model: `python synapse.py index`.",
        )


def _slug(part: Part, parts: Sequence[Part]) -> str:
    """The table named after a part; with a hash of its id where another part would get the same."""
    slugs = [_cleaned(other.name) for other in parts]
    slug = _cleaned(part.name)
    if slugs.count(slug) > 1:
        slug = f"{slug[:31]}_{hashlib.sha256(part.id.encode()).hexdigest()[:6]}"
    return f"documents_{slug}"


def _cleaned(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:38] or "collection"
