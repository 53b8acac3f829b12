"""
A language model's server: real HTTP, OpenAI's chat completions protocol, and every way in which real ones fail.

    with FakeLanguageModel(answer="PostgreSQL [1].") as server:
        Settings(llm_base_url=server.url)
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = str


class FakeLanguageModel:
    """
    A server on a free port of this machine.

    :param answer: What it answers, or a function of the messages that returns it.
    :param failures: How the next requests fail, in order; after them it answers. `429`, `429-forever-later`, `500`,
        `401`, `404`, `cut` (in the middle of the body), `unfinished` (a stream that ends early, but cleanly),
        `garbage`, `html`, `silent` (never answers), `empty`.
    :param forever: How every request fails.
    :param token_delay: Seconds between the parts of a streamed answer.
    """

    def __init__(
        self,
        answer: str | Callable[[list[dict[str, Any]]], str] = "An answer [1].",
        *,
        failures: tuple[Behaviour, ...] = (),
        forever: Behaviour | None = None,
        token_delay: float = 0.0,
    ) -> None:
        self.answer = answer
        self.failures = list(failures)
        self.forever = forever
        self.token_delay = token_delay
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> FakeLanguageModel:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def next_failure(self, request: dict[str, Any], key: str | None) -> Behaviour | None:
        """Remember a request, and say how it fails."""
        with self._lock:
            self.requests.append(request)
            self.keys.append(key)
            return self.forever or (self.failures.pop(0) if self.failures else None)

    def text(self, messages: list[dict[str, Any]]) -> str:
        """The answer to these messages."""
        return self.answer(messages) if callable(self.answer) else self.answer


def _handler(model: FakeLanguageModel) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            """A client that hangs up is part of the tests."""
            with contextlib.suppress(ConnectionError):
                super().handle()

        def log_message(self, *_: object) -> None:
            """Tests' output stays clean."""

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            failure = model.next_failure(request, self.headers.get("Authorization"))
            if failure in _STATUS:
                self._fail(failure)
            elif failure == "silent":
                model.closing.wait(60)
                self.close_connection = True
            elif failure in ("garbage", "html"):
                self._send(_GARBAGE[failure], "text/html" if failure == "html" else "application/json")
            elif request.get("stream"):
                self._stream(model.text(request["messages"]), failure)
            else:
                self._answer(model.text(request["messages"]), failure)

        def _fail(self, failure: str) -> None:
            status, headers = _STATUS[failure]
            error = {"error": {"message": "secret-document-text", "type": "x", "code": str(status)}}
            self._send(json.dumps(error), "application/json", status=status, headers=headers)

        def _send(self, body: str, kind: str, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
            data = body.encode()
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def _answer(self, text: str, failure: str | None) -> None:
            text = "" if failure == "empty" else text
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            body = json.dumps({**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE})
            if failure not in ("cut", "unfinished"):
                self._send(body, "application/json")
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2].encode())
            self.close_connection = True

        def _stream(self, text: str, failure: str | None) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            words = [] if failure == "empty" else text.split(" ")
            for n, word in enumerate(words):
                if failure in ("cut", "unfinished") and n >= max(1, len(words) // 2):
                    break
                self._event({"delta": {"role": "assistant", "content": word if n == 0 else f" {word}"}})
                time.sleep(model.token_delay)
            if failure == "cut":
                self.close_connection = True
                return
            if failure != "unfinished":
                self._event({"delta": {}, "finish_reason": "stop"})
                self._chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def _event(self, choice: dict[str, Any]) -> None:
            choice = {"index": 0, "finish_reason": None, **choice}
            self._chunk(f"data: {json.dumps({**_HEAD, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n")

        def _chunk(self, text: str) -> None:
            data = text.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    return Handler


_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "fake"}
_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_GARBAGE = {"garbage": '{"choices": [', "html": "<html><body>Welcome to nginx!</body></html>"}
_STATUS: dict[str | None, tuple[int, dict[str, str]]] = {
    "429": (429, {"Retry-After": "0.05"}),
    "429-forever-later": (429, {"Retry-After": "3600"}),
    "500": (500, {"Retry-After": "0.05"}),
    "401": (401, {}),
    "404": (404, {}),
}
