"""Packed float32: what fits, what it looks like, how it travels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pgvector import Vector

from database.errors import InvalidInputError
from migration.bytea_books import needed_bytes
from migration.bytea_canary import Canary, distances
from migration.bytea_index import Index, wanted_definition
from migration.bytea_options import Options
from migration.bytea_table import ByteaTable
from migration.bytea_values import Packing, VectorArray, checksum, suspicions, unpack, vectors_sent

FLOATS = arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(width=32))


def table(name: str = "items", target: str = "embedding_vector") -> ByteaTable:
    return ByteaTable(
        oid=1,
        schema="app",
        name=name,
        column="embedding",
        target=target,
        has_target=False,
        key=(("id", "bigint"), ("part", "text")),
        rows=0,
        size=0,
        vector_schema="public",
        vector_oid=2,
        vector_array_oid=3,
    )


@given(FLOATS, st.booleans())
def test_unpacking_gives_back_every_bit(vectors: np.ndarray, big_endian: bool) -> None:
    packing = Packing(3, big_endian=big_endian)
    unpacked = unpack([vector.astype(packing.dtype).tobytes() for vector in vectors], packing)
    finite = np.isfinite(vectors).all(axis=1)
    assert (unpacked.vectors[finite].view(np.uint32) == vectors[finite].view(np.uint32)).all()
    for kind, vector in zip(unpacked.kinds, vectors, strict=True):
        expected = "zero_vector" if not vector.any() else None if np.isfinite(vector).all() else "not_finite_vector"
        assert kind == expected


def test_lengths_that_do_not_fit_stand_between_those_that_do() -> None:
    one, two = np.ones(2, "<f4").tobytes(), np.full(2, 2, "<f4").tobytes()
    unpacked = unpack([b"", one, one[:-1], two, one + two], Packing(2))
    assert unpacked.kinds == ["dimension", None, "dimension", None, "dimension"]
    assert unpacked.places.tolist() == [1, 3]
    assert unpacked.vectors.tolist() == [[1, 1], [2, 2]]
    assert unpack([], Packing(2)).kinds == []


def test_zeros_fit_if_they_are_kept() -> None:
    zeros, negative = np.zeros(2, "<f4").tobytes(), np.full(2, -0.0, "<f4").tobytes()
    unpacked = unpack([zeros, negative], Packing(2))
    assert unpacked.fitting(keep_zero=False)[0].tolist() == []
    places, vectors = unpacked.fitting(keep_zero=True)
    assert places.tolist() == [0, 1]
    assert np.signbit(vectors).tolist() == [[False, False], [True, True]]


RANDOM = np.random.default_rng(0).standard_normal((50, 32))


@pytest.mark.parametrize(
    ("dtype", "big_endian", "said"),
    [
        ("<f4", False, None),
        (">f4", True, None),
        (">f4", False, "float32 in big-endian order"),
        ("<f4", True, "float32 in little-endian order"),
        ("<f8", False, "float64"),
        (">f8", False, "float64"),
        ("<f2", False, "float16"),
    ],
)
def test_what_values_look_like(dtype: str, big_endian: bool, said: str | None) -> None:
    values = [row.astype(dtype).tobytes() for row in RANDOM]
    found = suspicions(values, Packing(len(values[0]) // 4, big_endian=big_endian))
    assert [said in sentence for sentence in found] == ([True] if said else [])


def test_odd_but_right_values_are_not_suspected() -> None:
    packing = Packing(32)
    for rows in (np.zeros((9, 32)), np.ones((9, 32)), RANDOM * 1e-7, RANDOM * 1e4, np.eye(32)):
        assert suspicions([row.astype("<f4").tobytes() for row in rows], packing) == []
    assert suspicions([], packing) == []


def test_files_of_numpy_and_pickles_are_recognised() -> None:
    header = b"\x93NUMPY\x01\x00v\x00" + b" " * 118
    assert "NumPy file" in suspicions([header + bytes(128)] * 3, Packing(64))[0]


def test_the_array_is_what_pgvector_would_send() -> None:
    vectors = np.array([[1.5, -0.0], [1e-45, 3e38]], dtype=np.float32)
    sent = VectorArray(vectors, 12345).dump()
    first, second = (Vector(vector).to_binary() for vector in vectors)
    size = len(first).to_bytes(4)
    assert sent[8:12] == (12345).to_bytes(4)
    assert sent[20:] == size + first + size + second
    assert (vectors_sent([first, second], 2).view(np.uint32) == vectors.view(np.uint32)).all()


def test_the_checksum_knows_rows_and_bits_but_no_order() -> None:
    vectors = np.array([[1.0, 0.0], [2.0, 0.0]], dtype=np.float32)
    whole = checksum([["a"], ["b"]], vectors)
    assert whole == checksum([["b"], ["a"]], vectors[::-1])
    assert whole != checksum([["a"], ["b"]], vectors[::-1])
    assert whole != checksum([["a"], ["b"]], vectors * np.float32([1, -1]))
    assert checksum([["ab", "c"]], vectors[:1]) != checksum([["a", "bc"]], vectors[:1])


@given(FLOATS, st.sampled_from(["cosine", "l2", "ip"]))
def test_distances_are_those_of_the_formulas(vectors: np.ndarray, distance: str) -> None:
    vectors = np.where(np.isfinite(vectors) & (np.abs(vectors) < 1e6), vectors, 1).astype(np.float32)
    queries = vectors[:1].astype(np.float64)
    found = distances(queries, vectors, distance)  # type: ignore[arg-type]
    for place, vector in enumerate(vectors.astype(np.float64)):
        dot, norms = queries[0] @ vector, np.linalg.norm(queries[0]) * np.linalg.norm(vector)
        expected = {
            "ip": -dot,
            "l2": np.linalg.norm(queries[0] - vector),
            "cosine": 1 - dot / norms if norms > 1e-150 else np.inf,
        }[distance]
        if distance != "cosine" or norms > 1e-150:
            scale = max(1.0, float(np.abs(vectors).max()))
            assert found[0, place] == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale)


def test_nearest_in_memory_over_pages_is_nearest_over_all() -> None:
    vectors = RANDOM.astype(np.float32)
    keys = [[str(n)] for n in range(len(vectors))]
    canary = Canary(keys[:3], vectors[:3], "l2")
    for start in range(0, 50, 7):
        canary.observe(keys[start : start + 7], vectors[start : start + 7])
    whole = distances(vectors[:3].astype(np.float64), vectors, "l2")
    whole[range(3), range(3)] = np.inf  # its own row
    assert np.allclose(np.sort(canary._nearest), np.sort(whole)[:, :10])


def test_made_names_fit_and_differ() -> None:
    assert table().made("hnsw") == "items_embedding_vector_hnsw"
    long = [table(name="t" * 60 + end).made("hnsw") for end in "ab"]
    assert long[0] != long[1]
    assert all(len(name.encode()) <= 63 and name.endswith("_hnsw") for name in long)
    umlauts = table(name="ü" * 31).made("insert", first="zzz_synapse_")
    assert len(umlauts.encode()) <= 63
    assert umlauts.startswith("zzz_synapse_")


def test_the_condition_behind_a_key_compares_in_the_keys_own_types() -> None:
    condition, given = table().beyond(["7", "x"])
    assert condition.as_string() == '("t"."id", "t"."part") > (%(beyond0)s::text::bigint, %(beyond1)s::text::text)'
    assert given == {"beyond0": "7", "beyond1": "x"}


@pytest.mark.parametrize(
    ("index", "dimension", "hint"),
    [
        (Index(), 2001, "--halfvec"),
        (Index(), 4001, "--index none"),
        (Index(halfvec=True), 4001, "--index none"),
        (Index(m=1), 3, None),
        (Index(m=16, ef_construction=20), 3, None),
    ],
)
def test_indexes_that_pgvector_does_not_build(index: Index, dimension: int, hint: str | None) -> None:
    with pytest.raises(InvalidInputError) as caught:
        index.check(dimension)
    assert (hint or "") in caught.value.hint


def test_indexes_that_it_builds() -> None:
    Index().check(2000)
    Index(halfvec=True).check(4000)
    assert Index(method="ivfflat").storage(5_000) == "lists = 5"
    assert Index(method="ivfflat").storage(4_000_000) == "lists = 2000"
    assert Index(method="ivfflat").storage(0) == "lists = 1"
    assert wanted_definition(Index(halfvec=True, distance="l2")) == "hnsw(m=16,ef_construction=64) halfvec_l2_ops"


def test_room_grows_with_rows_and_index() -> None:
    bare = needed_bytes(1000, 384, None)
    assert bare == 2 * 1000 * (4 * 384 + 8)
    assert needed_bytes(1000, 384, Index(halfvec=True)) < needed_bytes(1000, 384, Index())
    assert needed_bytes(1000, 384, Index()) - bare == pytest.approx(2048 * 1000, rel=0.01)  # four to a page of 8 KB


@pytest.mark.parametrize(
    "options",
    [
        {"policies": {"typo": "keep"}},
        {"policies": {"dimension": "drop"}},
        {"dimension": 0},
        {"dimension": 16_001},
        {"batch": 0},
        {"pause": -1},
        {"least_overlap": 1.5},
    ],
)
def test_options_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        Options(table="t", column="c", **options)  # type: ignore[arg-type]
