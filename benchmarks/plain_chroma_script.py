"""
What people write today to leave Chroma: pages of `get`, and `write_documents`. Runs in an environment with chromadb.

    .venv-chroma/bin/python benchmarks/plain_chroma_script.py FOLDER COLLECTION OWNER_URL DIMENSION

Prints JSON: seconds and rows.
"""

from __future__ import annotations

import json
import sys
import time

import chromadb
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.document_stores.pgvector import PgvectorDocumentStore

PAGE = 1000


def main(folder: str, name: str, url: str, dimension: int) -> None:
    """Copy a collection."""
    began = time.perf_counter()
    collection = chromadb.PersistentClient(folder).get_collection(name)
    store = PgvectorDocumentStore(
        connection_string=Secret.from_token(url),
        table_name="plain_copy",
        embedding_dimension=dimension,
        vector_function="cosine_similarity",
        search_strategy="hnsw",
    )
    offset = 0
    while True:
        page = collection.get(limit=PAGE, offset=offset, include=["documents", "metadatas", "embeddings"])
        if not page["ids"]:
            break
        store.write_documents(
            [
                Document(id=id_, content=content, meta=dict(meta or {}), embedding=embedding.tolist())
                for id_, content, meta, embedding in zip(
                    page["ids"], page["documents"], page["metadatas"], page["embeddings"], strict=True
                )
            ]
        )
        offset += len(page["ids"])
    print(json.dumps({"seconds": time.perf_counter() - began, "rows": offset}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
