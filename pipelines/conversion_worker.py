"""
Converts files in a process of its own, which can be killed.

A damaged file can make its parser run for minutes, take all memory or crash the interpreter. None of that reaches the
program: the process is ended, the file is named, and the next one is converted by a new process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from database.errors import SynapseError

if TYPE_CHECKING:
    from config import Settings
    from pipelines.preparation import PreparedSource

START_TIMEOUT = 180.0
"""Seconds that the process may take to import its parsers, on a slow and busy machine."""

_PROGRAM = "import sys; sys.path[:] = {path!r}; from pipelines.conversion_worker import serve; serve({descriptor})"


class ConversionError(SynapseError):
    """A file cannot be converted; the message is the reason that its quarantine is given."""

    code = "conversion"


class SourceGoneError(ConversionError):
    """A file was deleted before it could be converted."""


class ConversionWorker:
    """
    The near end of the process. Starts it when first needed, and again after it died.

    `convert` is called by one thread; `stop` may be called by any.

    :param settings: Of the preparation pipeline; `conversion_timeout` is the time that one file gets.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._lock = threading.Lock()
        self._is_ready = False

    def start(self) -> None:
        """Start the process without waiting for it."""
        with self._lock:
            if self._process is not None:
                return
            self._connection, far = Pipe()
            program = _PROGRAM.format(path=sys.path, descriptor=far.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                start_new_session=True,  # Ctrl-C is for the program, which ends this process in its own order
            )
            far.close()
            self._is_ready = False
        self._connection.send(self._settings)

    def convert(self, path: str, *, meta: Mapping[str, Any]) -> PreparedSource:
        """
        Convert and split one file.

        :param path: The file.
        :param meta: Metadata from outside it.
        :raises ConversionError: If it cannot be converted: it is damaged, takes too long, or crashes the parser.
        :raises SourceGoneError: If it is not there any more.
        :raises SynapseError: If the process cannot be started at all, whatever the file.
        """
        self._await_ready()
        limit = self._settings.conversion_timeout
        try:
            answer = self._exchange((path, dict(meta)), timeout=limit)
        except TimeoutError:
            self._end()
            raise ConversionError(
                f"its conversion took longer than {limit:g} s (SYNAPSE_CONVERSION_TIMEOUT) and was stopped"
            ) from None
        except (EOFError, OSError):
            raise ConversionError(f"its conversion crashed: the process {self._end()}") from None
        prepared, reason = answer
        if reason is not None:
            raise ConversionError(reason) if os.path.exists(path) else SourceGoneError(reason)
        return prepared  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the process at once; `start` starts another."""
        self._end()

    def _await_ready(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._end()  # it died while idle, which is no file's fault
        self.start()
        if self._is_ready:
            return
        try:
            problem = self._receive(START_TIMEOUT)
        except TimeoutError:
            self._end()
            problem = f"it was not ready after {START_TIMEOUT:g} s"
        except (EOFError, OSError):
            problem = f"it {self._end()}"
        if problem is not None:
            self._end()
            raise SynapseError(
                f"The process that converts files was expected to start, but {problem}.",
                hint="Check that requirements.txt is installed and that memory is not short.",
            )
        self._is_ready = True

    def _exchange(self, task: Any, *, timeout: float) -> Any:
        if self._connection is None:
            raise EOFError
        self._connection.send(task)
        return self._receive(timeout)

    def _receive(self, timeout: float) -> Any:
        if self._connection is None:
            raise EOFError
        if not self._connection.poll(timeout):
            raise TimeoutError
        return self._connection.recv()

    def _end(self) -> str:
        """Kill the process with whatever it started. Returns how it had ended, if it had."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return "was stopped"
        time.sleep(0.05 if process.poll() is None else 0)  # a pipe breaks just before its process has ended
        code = process.poll()
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code is None or self._connection is None:
            return "was stopped"
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def serve(descriptor: int) -> None:
    """
    The far end: convert until nobody asks any more.

    :param descriptor: File descriptor of the connection; the first message is the settings.
    """
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    # Haystack imports torch where it can. Conversion needs none, and starts in a third of the time without.
    sys.modules["torch"] = None  # type: ignore[assignment]
    with Connection(descriptor) as connection:
        settings = connection.recv()
        try:
            from pipelines.indexing import build_preparation_pipeline
            from pipelines.preparation import prepare

            pipeline = build_preparation_pipeline(settings)
            pipeline.warm_up()
        except Exception as exc:
            connection.send(f"it failed: {_sentence(exc)}")
            return
        connection.send(None)
        while True:
            try:
                path, meta = connection.recv()
            except EOFError:
                return
            try:
                connection.send((prepare(pipeline, path, meta), None))
            except Exception as exc:
                connection.send((None, _sentence(exc)))


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, SynapseError):
        return exc.message
    if isinstance(exc, MemoryError):
        return "it needs more memory than there is"
    text = " ".join(str(exc).replace("\0", "").split())
    return f"{type(exc).__name__}: {text[:300]}" if text else type(exc).__name__


def _end_with_parent(parent: int) -> None:
    """A program that was killed cannot end this process, which may be busy for minutes and not notice."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
