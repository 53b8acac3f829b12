"""
A server that speaks as much of Qdrant's REST protocol as writing and reading points take, over qdrant-client's local mode.

No package brings Qdrant's own server. What keeps this one honest is qdrant-client: tests write through it, and compare what
the source gives with what it reads. Vectors are written as Qdrant writes them: the shortest decimal of each float32.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http import models

VERSION = "1.15.1"


class StandIn:
    """
    The server's contents and its behaviour.

    :param api_key: Asked for with every request but the first page's.
    :param url: Where it listens.
    :param asked: Methods and paths of the requests until now.
    :param before: Called with each method and path; may raise `Hangup`, or change the contents.
    """

    def __init__(self, api_key: str | None) -> None:
        self.api_key = api_key
        self.local = QdrantClient(":memory:")
        self.lock = threading.Lock()
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda request: None
        self.not_finite: set[int] = set()
        self.url = ""


class Hangup(Exception):
    """Close the connection without an answer, as a server does that is killed."""


@contextmanager
def qdrant_server(api_key: str | None = None) -> Iterator[StandIn]:
    """A running server; it is gone with the context."""
    contents = StandIn(api_key)

    class Handler(_Handler):
        stand_in = contents

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    contents.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield contents
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    stand_in: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        path = urlsplit(self.path).path
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        with self.stand_in.lock:
            self.stand_in.asked.append(f"{self.command} {path}")
            try:
                self.stand_in.before(f"{self.command} {path}")
                status, answer = self._answer(path, body)
            except Hangup:
                self.close_connection = True
                return
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _serve

    def _answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/":
            return 200, {"title": "qdrant - vector search engine", "version": VERSION, "commit": "0"}
        given = self.headers.get("api-key")
        if self.stand_in.api_key is not None and given != self.stand_in.api_key:
            return (
                401,
                "Invalid API key or JWT" if given else "Must provide an API key or an Authorization bearer token",
            )
        for method, pattern, answer in _ROUTES:
            if method == self.command and (found := re.fullmatch(pattern, path)):
                names = [unquote(each) for each in found.groups()]
                if names and method != "PUT" and not self.stand_in.local.collection_exists(names[0]):
                    error = f"Not found: Collection `{names[0]}` doesn't exist!"
                    return 404, {"status": {"error": error}, "time": 0.0}
                return 200, {"result": answer(self.stand_in, body, *names), "status": "ok", "time": 0.0}
        return 404, None


def _collections(stand_in: StandIn, body: Any) -> Any:
    return {"collections": [{"name": each.name} for each in stand_in.local.get_collections().collections]}


def _collection(stand_in: StandIn, body: Any, name: str) -> Any:
    return stand_in.local.get_collection(name).model_dump(mode="json")


def _aliases(stand_in: StandIn, body: Any, name: str) -> Any:
    return stand_in.local.get_collection_aliases(name).model_dump(mode="json")


def _create(stand_in: StandIn, body: Any, name: str) -> bool:
    create = models.CreateCollection(**body)
    stand_in.local.create_collection(name, vectors_config=create.vectors, sparse_vectors_config=create.sparse_vectors)
    return True


def _upsert(stand_in: StandIn, body: Any, name: str) -> Any:
    stand_in.local.upsert(name, models.PointsList(**body).points)
    return {"operation_id": 0, "status": "completed"}


def _count(stand_in: StandIn, body: Any, name: str) -> Any:
    return {"count": stand_in.local.count(name).count}


def _scroll(stand_in: StandIn, body: Any, name: str) -> Any:
    points, following = stand_in.local.scroll(
        name,
        limit=body.get("limit") or 10,
        offset=body.get("offset"),
        with_payload=body.get("with_payload", True),
        with_vectors=body.get("with_vector", False),
    )
    return {"points": [_point(stand_in, each) for each in points], "next_page_offset": following}


def _retrieve(stand_in: StandIn, body: Any, name: str) -> Any:
    points = stand_in.local.retrieve(
        name, body["ids"], with_payload=body.get("with_payload", True), with_vectors=body.get("with_vector", False)
    )
    return [_point(stand_in, each) for each in reversed(points)]  # Qdrant promises no order


def _point(stand_in: StandIn, point: models.Record) -> Any:
    found = point.model_dump(mode="json", exclude_none=True)
    if "vector" in found:
        found["vector"] = _shortest(found["vector"])
        if point.id in stand_in.not_finite:
            found["vector"][0] = None  # as serde_json writes what is infinite
    return found


def _shortest(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: value if name == "indices" else _shortest(value) for name, value in vector.items()}
    if vector and isinstance(vector[0], list):
        return [_shortest(each) for each in vector]
    return [float(str(np.float32(each))) for each in vector]


_NAME = "/collections/([^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("GET", "/collections", _collections),
    ("GET", _NAME, _collection),
    ("GET", f"{_NAME}/aliases", _aliases),
    ("PUT", _NAME, _create),
    ("PUT", f"{_NAME}/points", _upsert),
    ("POST", f"{_NAME}/points/count", _count),
    ("POST", f"{_NAME}/points/scroll", _scroll),
    ("POST", f"{_NAME}/points", _retrieve),
]
