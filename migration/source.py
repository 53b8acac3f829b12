"""
What the engine knows of where data comes from: a source has parts, and a part is a stream of records.

A source only reads. It gives every record that is there, also those that its own program cannot show any more, each as it
was stored; what PostgreSQL cannot hold is for the engine to decide. `docs/adding-a-source.md` shows a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Distance = Literal["cosine", "l2", "ip"]
"""What a part was searched by. `l2` ranks like the Euclidean distance, squared or not; `ip` is the inner product."""

Position: TypeAlias = int | str | list[int | str]
"""Where in a part a record stands: any JSON value that the source can go on after."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """
    What migrates as a whole into one table: a collection.

    :param id: Tells it from the source's others, also where names repeat; the same at every opening.
    :param name: What a user calls it: its name, with tenant and database before it where they are not the default ones.
    :param count: How many ids it holds.
    :param dimension: Length of its vectors; `None` where there is none.
    :param distance: What it was searched by.
    :param facts: What else is worth a line in the receipt, such as who wrote it; JSON.
    :param refusal: Why it cannot be migrated as it is, with what to do; `None` if it can.
    """

    id: str
    name: str
    count: int
    dimension: int | None
    distance: Distance = "cosine"
    facts: Mapping[str, Any] = field(default_factory=dict)
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """
    What a source knows that a record misses.

    :param kind: One of `migration.conversion.KINDS`: `unreadable`, `extra_vectors`, …
    :param field: Where: `content`, `embedding`, or `meta.` and the key.
    :param original: What the source holds instead; whatever JSON cannot hold is written as text.
    """

    kind: str
    field: str
    original: Any


@dataclass(slots=True)
class Record:
    """
    One record, as the source holds it.

    :param id: Any text.
    :param content: Its text; may be `None`.
    :param meta: Its metadata: text, numbers, truth values, `None`, and lists and mappings of such.
    :param embedding: float32, of shape (dimension,); `None` if there is none.
    :param position: Where it stands.
    :param losses: What the source could not give whole.
    :param notes: Names of what is worth counting in the receipt but changes nothing, such as `recovered_from_log`.
    """

    id: str
    content: str | None
    meta: dict[str, Any]
    embedding: NDArray[np.float32] | None
    position: Position
    losses: tuple[Loss, ...] = ()
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """
    Where data comes from.

    :param kind: What it is, such as `chroma directory`.
    :param location: Where it is, without secrets.
    :param version: Of the program or the format that wrote it, as far as it can be told.
    """

    @property
    def kind(self) -> str: ...

    @property
    def location(self) -> str: ...

    @property
    def version(self) -> str | None: ...

    def parts(self) -> list[Part]:
        """Everything that is there, in a fixed order; also what is empty."""
        ...

    def records(self, part: Part, *, after: Position | None = None) -> Iterator[Record]:
        """
        The part's records, each id once, always in the same order, in bounded memory.

        :param after: Go on behind the record of this position.
        """
        ...

    def fingerprint(self) -> str:
        """
        A hash of all that is there, 64 hexadecimal digits; computed anew at each call.

        Another one means that the source has changed.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
