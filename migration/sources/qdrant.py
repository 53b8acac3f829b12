"""
Qdrant: what a directory of qdrant-client's local mode and a server have in common.

A collection is a part. It has one vector per point or several with names, of which one migrates; the others of a record are
a loss with the original beside. Ids are text: an integer in digits, a UUID with hyphens.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from migration.source import Distance, Loss, Part, Position, Record, Source
from migration.sources.qdrant_payload import Layout, layout_of

UNNAMED = ""
"""Qdrant's own name of a collection's only vector, where it was given none."""

SAMPLE = 1000
"""Points whose payloads tell the layout of a collection."""

_DISTANCES: dict[str, Distance] = {"Cosine": "cosine", "Euclid": "l2", "Dot": "ip"}


def open_qdrant(
    *,
    path: str | None = None,
    url: str | None = None,
    api_key: str | None = None,
    vector: str | None = None,
    content_field: str | None = None,
) -> Source:
    """
    A directory or a server as a source.

    :param path: The directory; or
    :param url: The server, as in `http://localhost:6333`, with
    :param api_key: its key.
    :param vector: Which vector of a collection that has several.
    :param content_field: Key of the payload that is the text. No layout is looked for then.
    :raises InvalidInputError: If it cannot be read.
    """
    if (path is None) == (url is None):
        raise ValueError("either path or url is needed")
    if path is not None:
        from migration.sources.qdrant_directory import QdrantDirectory

        return QdrantDirectory(path, vector=vector, content_field=content_field)
    from migration.sources.qdrant_server import QdrantServer

    assert url is not None
    return QdrantServer(url, api_key=api_key, vector=vector, content_field=content_field)


@dataclass(frozen=True, slots=True)
class Choice:
    """
    Which vector of a collection migrates.

    :param name: Its name, `UNNAMED` where it has none; `None` if there is none to choose.
    :param dimension: Its length.
    :param distance: What it is searched by.
    :param facts: What is worth a line in the receipt.
    :param refusal: Why none can be chosen.
    """

    name: str | None = None
    dimension: int | None = None
    distance: Distance = "cosine"
    facts: Mapping[str, Any] | None = None
    refusal: str | None = None


def choose_vector(config: Mapping[str, Any], wanted: str | None) -> Choice:
    """
    Choose a collection's vector.

    :param config: The collection's `vectors` and `sparse_vectors`, as Qdrant's API and its `meta.json` write them.
    :param wanted: The name that the user gave. It does not concern a vector without a name.
    """
    vectors = config.get("vectors") or {}
    if isinstance(vectors.get("size"), int):
        vectors = {UNNAMED: vectors}
    dense = {name: params for name, params in vectors.items() if not params.get("multivector_config")}
    others = [*vectors, *(config.get("sparse_vectors") or {})]
    if not dense:
        return Choice(facts=_left_out(others))
    name = next(iter(dense)) if len(dense) == 1 and (wanted is None or UNNAMED in dense) else wanted
    if name is None or name not in dense:
        offered = ", ".join(f"{name!r} ({params['size']}, {params['distance']})" for name, params in dense.items())
        found = "has several vectors" if wanted is None else f"has no vector {wanted!r}"
        return Choice(refusal=f"It {found}, and one migrates: choose with --vector, among {offered}.")
    size, distance = dense[name]["size"], dense[name]["distance"]
    facts = {
        **({"vector": name} if name != UNNAMED else {}),
        **_left_out([other for other in others if other != name]),
        "source_distance": distance,
        **({"datatype": dense[name]["datatype"]} if dense[name].get("datatype") else {}),
    }
    if distance not in _DISTANCES:
        refusal = (
            f"It is searched by the distance {distance}, which would rank differently here; there is no index for it."
        )
        return Choice(name, size, facts=facts, refusal=refusal)
    return Choice(name, size, _DISTANCES[distance], facts)


def _left_out(names: list[str]) -> dict[str, Any]:
    return {"left_out_vectors": names} if names else {}


@dataclass(frozen=True, slots=True)
class Collection:
    """
    A collection and how its points become records.

    :param part: What the engine knows of it.
    :param vector: Name of the vector that migrates; `None` if there is none.
    :param layout: How payloads are taken apart.
    """

    part: Part
    vector: str | None
    layout: Layout

    def record(
        self,
        point: str,
        payload: Mapping[str, Any],
        vectors: Any,
        *,
        position: Position,
        losses: tuple[Loss, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> Record:
        """
        Make a point a record.

        :param point: Its id.
        :param vectors: As Qdrant has them: a list of numbers, a list of such lists, or a mapping by name; `None` for none.
        :param losses: What was lost on the way here.
        """
        unpacked = self.layout.unpack(point, payload)
        embedding, more = take_vector(vectors, self.vector)
        return Record(
            id=unpacked.id,
            content=unpacked.content,
            meta=unpacked.meta,
            embedding=embedding,
            position=position,
            losses=losses + more if more else losses,
            notes=(*notes, unpacked.layout) if unpacked.layout else notes,
        )


def describe(
    name: str,
    config: Mapping[str, Any],
    *,
    count: int,
    sample: Sequence[tuple[str, Mapping[str, Any]]],
    wanted: str | None,
    content_field: str | None,
    facts: Mapping[str, Any],
    normalised: bool = False,
    refusal: str | None = None,
) -> Collection:
    """
    Describe a collection.

    :param count: How many points it has.
    :param sample: Ids and payloads of its first `SAMPLE` points.
    :param wanted: The vector that the user named.
    :param content_field: The key that the user named.
    :param facts: What else is known of it.
    :param normalised: Whether vectors that are searched by cosine were divided by their length when they were stored.
    :param refusal: Why it cannot be migrated, where that is known already.
    """
    choice = choose_vector(config, wanted)
    layout, seen = layout_of(sample)
    refusal = refusal or choice.refusal
    if content_field is not None:
        layout, seen = Layout(content_field, recognise=False), {"content_field": content_field}
        keys = sorted({key for _, payload in sample for key in payload})
        if sample and content_field not in keys:
            refusal = (
                refusal
                or f"Its first points have no {content_field!r} in the payload, but {', '.join(keys) or 'nothing'}."
            )
    if (choice.facts or {}).get("source_distance") == "Cosine":
        seen = {**seen, "normalised_by_qdrant": normalised}
    part = Part(
        id=name,
        name=name,
        count=count,
        dimension=choice.dimension,
        distance=choice.distance,
        facts={**(choice.facts or {}), **seen, **facts},
        refusal=refusal,
    )
    return Collection(part, choice.name, layout)


def take_vector(vectors: Any, chosen: str | None) -> tuple[NDArray[np.float32] | None, tuple[Loss, ...]]:
    """
    Take the chosen vector of a point's vectors.

    :returns: It, in the precision that Qdrant computes in, and what else there is.
    """
    named = vectors if isinstance(vectors, dict) else {UNNAMED: vectors}
    losses: tuple[Loss, ...] = ()
    embedding = None
    if chosen is not None and (value := named.get(chosen)) is not None:
        embedding = _dense(value)
        if embedding is None:
            losses = (Loss("unreadable", "embedding", value),)
    if len(named) > (chosen in named):  # spares most points the next line
        others = {name: _original(value) for name, value in named.items() if name != chosen and value is not None}
        losses = (*losses, Loss("extra_vectors", "embedding", others)) if others else losses
    return embedding, losses


def _dense(value: Any) -> NDArray[np.float32] | None:
    if type(value) is list:
        # Too large for float32 is infinite, which the engine sees; an array says nothing about it, and is faster.
        with suppress(TypeError):
            return np.frombuffer(array("f", value), dtype=np.float32)
    try:
        vector = np.array(value, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    return vector if vector.ndim == 1 else None


def _original(value: Any) -> Any:
    """Another vector: numbers as float32, a multi-vector as several of them, a sparse one by indices and values."""
    fields = getattr(value, "fields", value)
    if isinstance(fields, dict):
        return {key: fields[key] for key in ("indices", "values") if key in fields}
    if isinstance(fields, list) and fields and isinstance(fields[0], list):
        return [_original(each) for each in fields]
    dense = _dense(fields)
    return fields if dense is None else dense
