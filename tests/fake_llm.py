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
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = str
Message = dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """
    The model wants a tool to be run.

    :param name: The tool.
    :param arguments: What it is run with.
    """

    name: str
    arguments: dict[str, Any]


Reply = str | ToolCall | None


class FakeLanguageModel:
    """
    A server on a free port of this machine.

    :param answer: What it answers, or a function of the messages that returns it: a text, a call of a tool, or `None` to
        leave these messages without an answer, as `silent` does.
    :param failures: How the next requests fail, in order; after them it answers. `429`, `429-forever-later`, `500`,
        `400`, `401`, `404`, `cut` (in the middle of the body), `unfinished` (a stream that ends early, but cleanly),
        `garbage`, `html`, `silent` (never answers), `empty`.
    :param forever: How every request fails.
    :param token_delay: Seconds between the parts of a streamed answer.
    :param counts: Whether it says how many tokens it read and wrote.

    `first_words` has the `time.perf_counter()` at which the first word of a streamed answer went out, by the text of the
    last message; `abandoned` counts the streams whose client hung up before their end.
    """

    def __init__(
        self,
        answer: Reply | Callable[[list[Message]], Reply] = "An answer [1].",
        *,
        failures: tuple[Behaviour, ...] = (),
        forever: Behaviour | None = None,
        token_delay: float = 0.0,
        counts: bool = True,
    ) -> None:
        self.answer = answer
        self.failures = list(failures)
        self.forever = forever
        self.token_delay = token_delay
        self.counts = counts
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.first_words: dict[str, float] = {}
        self.abandoned = 0
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.socket.listen(256)  # the class's queue of five is too short for a crowd
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

    def reply(self, messages: list[Message]) -> Reply:
        """The answer to these messages."""
        return self.answer(messages) if callable(self.answer) else self.answer

    def hung_up(self) -> None:
        """Count a client that left in the middle of a stream."""
        with self._lock:
            self.abandoned += 1


def _handler(model: FakeLanguageModel) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # a word leaves when it is written, not when the one before was received

        def handle(self) -> None:
            """A client that hangs up is part of the tests."""
            with contextlib.suppress(ConnectionError):
                super().handle()

        def log_message(self, *_: object) -> None:
            """Tests' output stays clean."""

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            failure = model.next_failure(request, self.headers.get("Authorization"))
            reply = None if failure == "silent" else model.reply(request["messages"])
            if failure in _STATUS:
                self._fail(failure)
            elif reply is None:
                model.closing.wait(60)
                self.close_connection = True
            elif failure in ("garbage", "html"):
                self._send(_GARBAGE[failure], "text/html" if failure == "html" else "application/json")
            elif request.get("stream"):
                try:
                    self._stream(request, reply, failure)
                except ConnectionError:
                    model.hung_up()
                    raise
            else:
                self._answer(request, reply, failure)

        def _fail(self, failure: str | None) -> None:
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

        def _answer(self, request: dict[str, Any], reply: str | ToolCall, failure: str | None) -> None:
            content = "" if failure == "empty" else reply
            choice = {"index": 0, "message": _message(content), "finish_reason": _finish(reply)}
            usage = {"usage": _usage(request, reply)} if model.counts else {}
            body = json.dumps({**_HEAD, "object": "chat.completion", "choices": [choice], **usage})
            if failure not in ("cut", "unfinished"):
                self._send(body, "application/json")
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2].encode())
            self.close_connection = True

        def _stream(self, request: dict[str, Any], reply: str | ToolCall, failure: str | None) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            parts = [] if failure == "empty" else _parts(reply)
            for n, part in enumerate(parts):
                if failure in ("cut", "unfinished") and n >= max(1, len(parts) // 2):
                    break
                if n == 0:
                    model.first_words[str(request["messages"][-1].get("content"))] = time.perf_counter()
                self._event({"delta": part})
                time.sleep(model.token_delay)
            if failure == "cut":
                self.close_connection = True
                return
            if failure != "unfinished":
                self._event({"delta": {}, "finish_reason": _finish(reply)})
                if model.counts and (request.get("stream_options") or {}).get("include_usage"):
                    self._data(choices=[], usage=_usage(request, reply))
                self._chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def _event(self, choice: dict[str, Any]) -> None:
            self._data(choices=[{"index": 0, "finish_reason": None, **choice}])

        def _data(self, **fields: Any) -> None:
            self._chunk(f"data: {json.dumps({**_HEAD, 'object': 'chat.completion.chunk', **fields})}\n\n")

        def _chunk(self, text: str) -> None:
            data = text.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    return Handler


def _message(reply: str | ToolCall) -> Message:
    if isinstance(reply, ToolCall):
        return {"role": "assistant", "content": None, "tool_calls": [_tool_call(reply)]}
    return {"role": "assistant", "content": reply}


def _parts(reply: str | ToolCall) -> list[dict[str, Any]]:
    """The deltas of a streamed reply; a text comes word by word."""
    if isinstance(reply, ToolCall):
        return [{"role": "assistant", "tool_calls": [{"index": 0, **_tool_call(reply)}]}]
    words = reply.split(" ")
    return [{"role": "assistant", "content": word if n == 0 else f" {word}"} for n, word in enumerate(words)]


def _tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"id": "call-1", "type": "function", "function": function}


def _finish(reply: str | ToolCall) -> str:
    return "tool_calls" if isinstance(reply, ToolCall) else "stop"


def _usage(request: dict[str, Any], reply: str | ToolCall) -> dict[str, int]:
    """Tokens; this model's are words."""
    read = sum(len(str(message.get("content") or "").split()) for message in request["messages"])
    written = len(reply.split()) if isinstance(reply, str) else 1
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "fake"}
_GARBAGE = {"garbage": '{"choices": [', "html": "<html><body>Welcome to nginx!</body></html>"}
_STATUS: dict[str | None, tuple[int, dict[str, str]]] = {
    "429": (429, {"Retry-After": "0.05"}),
    "429-forever-later": (429, {"Retry-After": "3600"}),
    "500": (500, {"Retry-After": "0.05"}),
    "400": (400, {}),
    "401": (401, {}),
    "404": (404, {}),
}
