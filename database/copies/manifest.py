"""What a backup says of itself: versions, roles, and of each table how many rows it has and their checksum."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from database.copies.inventory import Inventory, Sum
from database.errors import InvalidInputError

FORMAT = 1
NAME = "manifest.json"
"""Of the manifest in a folder; beside a single file it has the file's name and `.json`."""

_EXPECTED = {"backup": int, "server_version": str, "schema_version": str, "tables": dict, "roles": list, "files": dict}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """
    The contents of a copy.

    :param created_at: When its snapshot was taken, ISO 8601 in UTC.
    :param database: Where it was taken, without secrets.
    :param server_version: PostgreSQL's there.
    :param pgvector_version: pgvector's there, which stands in the schema `pgvector_schema`.
    :param schema_version: Of our schema.
    :param programs: The major version of the pg_dump that wrote it.
    :param tenants: Their names.
    :param roles: Ours that it needs, and their `memberships`: `{role, member, inherit, set}`. Never a password.
    :param tables: By `schema.name`: rows and checksum.
    :param sizes: By `schema.name`: bytes on disk, without indexes.
    :param files: By name: size in bytes and SHA-256, of every file of the backup.
    :param shared_rows: Tables whose rows stand in files beside the archive, by name of the file.
    """

    created_at: str
    database: str
    server_version: str
    pgvector_version: str | None
    pgvector_schema: str | None
    schema_version: str
    programs: int
    tenants: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    memberships: tuple[dict[str, Any], ...] = ()
    tables: dict[str, Sum] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    shared_rows: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows of all tables together."""
        return sum(table.rows for table in self.tables.values())

    @property
    def major(self) -> int:
        """The major version of the server."""
        return int(self.server_version.split(".")[0])

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"backup": FORMAT, **asdict(self)}


def manifest_of(
    inventory: Inventory, *, database: str, created_at: str, programs: int, sums: dict[str, Sum] | None = None
) -> Manifest:
    """The manifest of a copy of what an inventory found."""
    facts = inventory.facts
    return Manifest(
        created_at=created_at,
        database=database,
        server_version=str(facts["server_version"]).split()[0],
        pgvector_version=facts["pgvector_version"],
        pgvector_schema=facts["pgvector_schema"],
        schema_version=inventory.schema_version or "",
        programs=programs,
        tenants=inventory.tenants,
        roles=inventory.roles,
        memberships=inventory.memberships,
        tables=sums or {},
        sizes={table.full_name: table.size for table in inventory.tables},
    )


def manifest_path(backup: Path) -> Path:
    """Where the manifest of a backup is."""
    return backup / NAME if backup.is_dir() else backup.with_name(backup.name + ".json")


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest, and wait until it is on disk."""
    with path.open("w", encoding="utf-8") as file:
        json.dump(manifest.to_dict(), file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(backup: Path) -> Manifest:
    """
    The manifest of a backup.

    :raises InvalidInputError: If there is no such backup, or what should be its manifest is none.
    """
    path = manifest_path(backup)
    if not backup.exists():
        raise InvalidInputError(f"A backup was expected at {backup}, but nothing is there.")
    if not path.is_file():
        raise InvalidInputError(
            f"A backup with its manifest {path.name} was expected, but {backup} has none.",
            hint="Name one backup, such as FOLDER/synapse-…, or a .dump file with its .json file beside it.",
        )
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in _EXPECTED.items():
            if not isinstance(given[name], kind):
                raise TypeError(name)
        if given.pop("backup") != FORMAT:
            raise ValueError("another format")
        for name in ("tenants", "roles", "memberships"):
            given[name] = tuple(given[name])
        given["tables"] = {name: Sum(**item) for name, item in given["tables"].items()}
        return Manifest(**given)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise InvalidInputError(
            f"The manifest of a backup was expected in {path}, but it cannot be read as one ({type(exc).__name__}).",
            hint="Take another backup: without its manifest nothing tells whether it is whole.",
        ) from exc


def described_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file in a folder, the manifest excepted, after all are on disk."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != NAME and path.is_file():
            found[path.name] = described_file(path)
    return found


def described_file(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def require_whole(backup: Path, manifest: Manifest) -> None:
    """
    Check that the files of a backup are those that were written.

    :raises InvalidInputError: If one is missing, or has other contents; the message names it.
    """
    folder = backup if backup.is_dir() else backup.parent
    for name, expected in manifest.files.items():
        path = folder / (name if backup.is_dir() else backup.name)
        if Path(name).name != name or not path.is_file():
            raise InvalidInputError(
                f"{backup} is not whole: its file {name!r} is missing.", hint="Take another backup of that time."
            )
        if described_file(path) != expected:
            raise InvalidInputError(
                f"{backup} is not whole: its file {name!r} is not the one that was written "
                f"({path.stat().st_size:,} bytes, {expected['bytes']:,} were expected).",
                hint="Take another backup of that time.",
            )
