"""
One peer's part of `benchmarks.peers`; runs in the peers' environment and imports nothing of this project.

    .venv-peers/bin/python -m benchmarks.peer_driver PEER DATA.npz OWNER_URL

DATA.npz holds rows, texts, places, questions and shares. Writes rows, builds what index the peer offers with its defaults, asks
each question under each share, and prints JSON: seconds of writing and building, and per share the ids and milliseconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

TOP_K = 10
TABLE = "peer_rows"


class Peer(Protocol):
    """What is asked of a library."""

    def write(self, rows: Any, texts: list[str], places: list[int]) -> None:
        """Store all rows."""

    def build(self) -> None:
        """Build an HNSW index, where writing did not maintain one."""

    def ask(self, question: Any, below: int | None) -> list[str]:
        """The ids of the ten nearest rows whose place is below a number."""


class LangChain:
    """PGVectorStore of langchain-postgres; the place is a column of its own, which is the fastest that it offers."""

    def __init__(self, url: str) -> None:
        from langchain_core.embeddings import Embeddings
        from langchain_postgres import Column, PGEngine, PGVectorStore

        class NoModel(Embeddings):
            """Vectors are given; nothing is embedded."""

            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                raise NotImplementedError

            def embed_query(self, text: str) -> list[float]:
                raise NotImplementedError

        engine = PGEngine.from_connection_string(url=url.replace("postgresql://", "postgresql+psycopg://"))
        engine.init_vectorstore_table(
            TABLE,
            vector_size=384,
            id_column=Column("langchain_id", "TEXT", nullable=False),
            metadata_columns=[Column("place", "INTEGER")],
        )
        self.store = PGVectorStore.create_sync(engine, NoModel(), TABLE, metadata_columns=["place"])

    def write(self, rows: Any, texts: list[str], places: list[int]) -> None:
        metas = [{"place": place} for place in places]
        self.store.add_embeddings(texts, rows.tolist(), metas, ids=[f"row {n}" for n in range(len(texts))])

    def build(self) -> None:
        from langchain_postgres.v2.indexes import HNSWIndex

        self.store.apply_vector_index(HNSWIndex())

    def ask(self, question: Any, below: int | None) -> list[str]:
        filter_ = {"place": {"$lt": below}} if below is not None else None
        found = self.store.similarity_search_by_vector(question.tolist(), k=TOP_K, filter=filter_)
        return [str(document.id) for document in found]


class LlamaIndex:
    """PGVectorStore of llama-index, metadata as jsonb, with its HNSW index, which is live while it writes."""

    def __init__(self, url: str) -> None:
        from llama_index.vector_stores.postgres import PGVectorStore

        self.store = PGVectorStore.from_params(
            connection_string=url.replace("postgresql://", "postgresql+psycopg2://"),
            async_connection_string=url.replace("postgresql://", "postgresql+asyncpg://"),
            table_name=TABLE,
            embed_dim=384,
            use_jsonb=True,
            hnsw_kwargs={
                "hnsw_m": 16,
                "hnsw_ef_construction": 64,
                "hnsw_ef_search": 40,
                "hnsw_dist_method": "vector_cosine_ops",
            },
        )

    def write(self, rows: Any, texts: list[str], places: list[int]) -> None:
        from llama_index.core.schema import TextNode

        self.store.add(
            [
                TextNode(id_=f"row {n}", text=text, embedding=row.tolist(), metadata={"place": place})
                for n, (row, text, place) in enumerate(zip(rows, texts, places, strict=True))
            ]
        )

    def build(self) -> None:
        pass

    def ask(self, question: Any, below: int | None) -> list[str]:
        from llama_index.core.vector_stores import FilterOperator, MetadataFilter, MetadataFilters, VectorStoreQuery

        place = [MetadataFilter(key="place", operator=FilterOperator.LT, value=below)] if below is not None else []
        query = VectorStoreQuery(
            query_embedding=question.tolist(), similarity_top_k=TOP_K, filters=MetadataFilters(filters=[*place])
        )
        return list(self.store.query(query).ids or [])


class Vecs:
    """A collection of vecs, metadata as jsonb."""

    def __init__(self, url: str) -> None:
        import vecs

        self.collection = vecs.create_client(url).get_or_create_collection(name=TABLE, dimension=384)

    def write(self, rows: Any, texts: list[str], places: list[int]) -> None:
        records = zip(rows, texts, places, strict=True)
        self.collection.upsert(
            records=[(f"row {n}", row, {"place": place, "text": text}) for n, (row, text, place) in enumerate(records)]
        )

    def build(self) -> None:
        from vecs import IndexMeasure, IndexMethod

        self.collection.create_index(method=IndexMethod.hnsw, measure=IndexMeasure.cosine_distance)

    def ask(self, question: Any, below: int | None) -> list[str]:
        filters = {"place": {"$lt": below}} if below is not None else None
        return list(self.collection.query(data=question, limit=TOP_K, filters=filters))


PEERS: dict[str, Callable[[str], Peer]] = {"langchain-postgres": LangChain, "llama-index": LlamaIndex, "vecs": Vecs}


def measure(peer: Peer, data: Any) -> dict[str, Any]:
    """
    Write, build, ask.

    :param peer: The library.
    :param data: The arrays of DATA.npz, by name.
    """
    rows, texts, places = data["rows"], [str(text) for text in data["texts"]], data["places"].tolist()
    began = time.perf_counter()
    peer.write(rows, texts, places)
    written = time.perf_counter()
    peer.build()
    built = time.perf_counter()
    answers = {}
    for share in data["shares"].tolist():
        below = round(len(rows) * share) if share < 1 else None
        peer.ask(data["questions"][0], below)
        answers[str(share)] = [_timed(peer, question, below) for question in data["questions"]]
    return {"write_s": written - began, "build_s": built - written, "answers": answers}


def _timed(peer: Peer, question: Any, below: int | None) -> tuple[list[str], float]:
    began = time.perf_counter()
    found = peer.ask(question, below)
    return found, (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    name, path, url = sys.argv[1:]
    print(json.dumps(measure(PEERS[name](url), np.load(path))))
