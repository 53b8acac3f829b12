"""
An embeddings server: real HTTP, OpenAI's protocol, the real model behind it, and the ways in which real ones fail.

    with EmbeddingServer() as server:
        Settings(embedding_base_url=server.url)
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Embed = Callable[[Sequence[str]], list[list[float]]]


def real_model() -> Embed:
    """The default model, loaded here."""
    from components.embedders import TextEmbedder

    embedder = TextEmbedder()
    embedder.warm_up()
    lock = threading.Lock()

    def embed(texts: Sequence[str]) -> list[list[float]]:
        with lock:
            return [[float(number) for number in vector] for vector in embedder.embed(texts)]

    return embed


def letters(texts: Sequence[str], *, dimension: int = 384) -> list[list[float]]:
    """Vectors that say how often each letter occurs: alike for texts that are alike, at no cost, and of no unit length."""
    return [[1.0 + sum(ord(letter) % dimension == n for letter in text) for n in range(dimension)] for text in texts]


class EmbeddingServer:
    """
    A server on a free port of this machine.

    :param embed: What it embeds with.
    :param model: The one model that it knows; `None` means any.
    :param key: The key that it wants; `None` means none.
    :param failures: How the next requests fail, in order; after them it answers: a status such as `429`, `cut` (in the
        middle of the body), `html`, `garbage`, `short` (an embedding too few), `shuffled` (out of order, which is allowed),
        `nan`, `zeros`, `silent` (never answers).
    :param forever: How every request fails.
    """

    def __init__(
        self,
        embed: Embed = letters,
        *,
        model: str | None = None,
        key: str | None = None,
        failures: Sequence[str] = (),
        forever: str | None = None,
    ) -> None:
        self.embed, self.model, self.key, self.forever = embed, model, key, forever
        self.failures = list(failures)
        self.requests: list[dict[str, Any]] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> EmbeddingServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def texts(self) -> list[str]:
        """All texts that were asked for, in order."""
        return [text for request in self.requests for text in request["input"]]

    def next_failure(self, request: dict[str, Any]) -> str | None:
        """Remember a request, and say how it fails."""
        with self._lock:
            self.requests.append(request)
            return self.forever or (self.failures.pop(0) if self.failures else None)


def _answer(server: EmbeddingServer, request: dict[str, Any], how: str | None) -> dict[str, Any]:
    vectors = server.embed(request["input"])
    rows = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    if how == "short":
        rows.pop()
    elif how == "shuffled":
        rows.reverse()
    elif how == "nan":
        rows[0]["embedding"] = [float("nan")] * len(vectors[0])
    elif how == "zeros":
        rows[0]["embedding"] = [0.0] * len(vectors[0])
    tokens = sum(len(text.split()) for text in request["input"])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": request["model"], "data": rows, "usage": usage}


def _handler(server: EmbeddingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            """A client that hangs up is part of the tests."""
            with contextlib.suppress(ConnectionError):
                super().handle()

        def log_message(self, *_: object) -> None:
            """Tests' output stays clean."""

        def do_POST(self) -> None:
            """Answer, or fail."""
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            how = server.next_failure(request)
            if self.path != "/v1/embeddings" or (server.model and request["model"] != server.model):
                return self._send(404, {"error": {"message": "no such model"}})
            if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
                return self._send(401, {"error": {"message": f"wrong key {self.headers['Authorization']}"}})
            if how == "silent":
                server.closing.wait(60)
                return None
            if how is not None and how.isdigit():
                return self._send(int(how), {"error": {"message": f"failed on {request['input']}"}})
            if how == "html":
                return self._send(200, "<html>Welcome to nginx!</html>", kind="text/html")
            if how == "garbage":
                return self._send(200, {"data": [{"index": 0, "embedding": "?"}], "model": "?", "usage": {}})
            return self._send(200, _answer(server, request, how), cut=how == "cut")

        def _send(self, status: int, body: Any, *, kind: str = "application/json", cut: bool = False) -> None:
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text[: len(text) // 2] if cut else text)
            self.close_connection = cut

    return Handler
