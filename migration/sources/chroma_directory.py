"""
A Chroma directory of any version, 0.3 to 1.5: which one it is, and the source that reads it.

Opening one with chromadb rewrites it, and a newer chromadb opens an older directory as an empty one. So chromadb is not
used: the format is recognised from the files, and they are only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from database.errors import InvalidInputError
from migration.source import Distance, Part, Position, Record, Source
from migration.sources.chroma_snapshot import DATABASE

PARQUET = ("chroma-collections.parquet", "chroma-embeddings.parquet")

_EXPECTED = f"expected the folder of a PersistentClient, with {DATABASE} (chromadb 0.4 to 1.5), or with {' and '.join(PARQUET)} (0.3)"
_SHOWN = 5


class ChromaDirectory:
    """
    A directory that chromadb has written, as a source.

    :param path: The folder.
    :param distances: What collections were searched by, by name, where the directory contradicts itself.
    :raises InvalidInputError: If it is none, or not certain to be one.
    """

    kind = "chroma directory"

    def __init__(self, path: str | Path, *, distances: Mapping[str, Distance] | None = None) -> None:
        self._source = _open(Path(path), distances or {})
        self.location = str(Path(path).resolve())
        self.version = self._source.version

    def parts(self) -> list[Part]:
        """Every collection of every database and tenant, by name; also the empty ones."""
        return self._source.parts()

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """The records of a collection; also those that Chroma itself cannot show any more."""
        return self._source.records(part, after=after)

    def fingerprint(self) -> str:
        """Over Chroma's own files."""
        return self._source.fingerprint()

    def close(self) -> None:
        """Close its files."""
        self._source.close()


def _open(path: Path, distances: Mapping[str, Distance]) -> Source:
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        hint = f"Give {path.parent}." if path.name == DATABASE else "Check the path."
        raise InvalidInputError(f"{path}: {_EXPECTED}, found {found}.", hint=hint)
    names = _names(path)
    parquet = [name for name in PARQUET if name in names]
    if DATABASE in names and parquet:
        raise InvalidInputError(
            f"{path} holds both {parquet[0]}, of chromadb 0.3, and {DATABASE}, of a newer one: expected one of them.",
            hint="A newer chromadb that opens a 0.3 folder finds nothing and adds an empty database. "
            "Copy what is to be migrated to a folder of its own.",
        )
    if DATABASE in names:
        from migration.sources.chroma_sqlite import ChromaSqlite

        return ChromaSqlite(path, distances=distances)
    if parquet:
        from migration.sources.chroma_parquet import ChromaParquet

        if distances:
            raise InvalidInputError("chromadb 0.3 states each distance once; none can be given for it.")
        return ChromaParquet(path)
    raise InvalidInputError(f"{path}: {_EXPECTED}, found {_listed(names)}.", hint=_nearby(path, names))


def _names(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir())
    except OSError as exc:
        raise InvalidInputError(f"{path} cannot be listed: {exc.strerror}.") from exc


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "an empty folder"


def _nearby(path: Path, names: list[str]) -> str:
    for name in names:
        if any((path / name / known).is_file() for known in (DATABASE, *PARQUET)):
            return f"There is one in {path / name}."
    return "Give the folder that PersistentClient(path=…) was given."
