"""The converter process: what a file can do to it, and what the program notices of that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from config import Settings
from database.errors import SynapseError
from pipelines import conversion_worker
from pipelines.conversion_worker import ConversionError, ConversionWorker, SourceGoneError

FAKES = """
import os, sys, time, types
from database.errors import InvalidInputError

class Pipeline:
    def warm_up(self):
        if os.environ.get("SYNAPSE_TEST_BROKEN"):
            raise RuntimeError("no tokenizer")

def prepare(pipeline, path, meta):
    text = open(path).read()
    if text == "hang":
        time.sleep(600)
    if text == "spin":
        while True:
            pass
    if text == "crash":
        os.abort()
    if text == "exit":
        os._exit(7)
    if text == "refuse":
        raise InvalidInputError("it is encrypted", hint="Decrypt it.")
    if text == "fail":
        raise KeyError("a\\0b")
    if text == "memory":
        raise MemoryError
    print("converters print")
    return (text, meta, os.getpid())

sys.modules["pipelines.indexing"] = types.SimpleNamespace(build_preparation_pipeline=lambda settings: Pipeline())
sys.modules["pipelines.preparation"] = types.SimpleNamespace(prepare=prepare)
"""


@pytest.fixture(autouse=True)
def _fake_converters(monkeypatch: pytest.MonkeyPatch) -> None:
    program = conversion_worker._PROGRAM
    head, _, tail = program.partition("; from pipelines")
    fakes = FAKES.replace("{", "{{").replace("}", "}}")
    monkeypatch.setattr(conversion_worker, "_PROGRAM", f"{head}\n{fakes}\nfrom pipelines{tail}")


@pytest.fixture
def worker() -> Iterator[ConversionWorker]:
    worker = ConversionWorker(Settings(conversion_timeout=1.0))
    yield worker
    worker.stop()


def convert(worker: ConversionWorker, folder: Path, text: str) -> tuple[str, dict[str, object], int]:
    path = folder / f"{text}.txt"
    path.write_text(text)
    return worker.convert(str(path), meta={"a": 1})  # type: ignore[return-value]


def test_converts_in_one_process(worker: ConversionWorker, tmp_path: Path) -> None:
    text, meta, process = convert(worker, tmp_path, "one")
    assert (text, meta) == ("one", {"a": 1})
    assert process != os.getpid()
    assert convert(worker, tmp_path, "two")[2] == process


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hang", r"took longer than 1 s \(SYNAPSE_CONVERSION_TIMEOUT\)"),
        ("spin", "took longer than 1 s"),
        ("crash", "crashed: the process was killed by signal 6"),
        ("exit", "crashed: the process ended with code 7"),
        ("refuse", "^it is encrypted$"),
        ("fail", "^KeyError: 'a"),
        ("memory", "more memory than there is"),
    ],
)
def test_a_bad_file_is_named_and_the_next_is_converted(
    worker: ConversionWorker, tmp_path: Path, text: str, reason: str
) -> None:
    convert(worker, tmp_path, "before")
    with pytest.raises(ConversionError, match=reason):
        convert(worker, tmp_path, text)
    assert convert(worker, tmp_path, "after")[0] == "after"


def test_a_file_that_is_gone(worker: ConversionWorker, tmp_path: Path) -> None:
    with pytest.raises(SourceGoneError):
        worker.convert(str(tmp_path / "missing.txt"), meta={})


def test_a_process_that_died_while_idle_is_no_files_fault(worker: ConversionWorker, tmp_path: Path) -> None:
    process = convert(worker, tmp_path, "one")[2]
    os.kill(process, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(process)], timeout=0.1)
    time.sleep(0.1)
    assert convert(worker, tmp_path, "two")[2] != process


def test_a_process_that_cannot_start_is_no_files_fault(
    worker: ConversionWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNAPSE_TEST_BROKEN", "1")
    with pytest.raises(SynapseError, match="expected to start, but it failed: RuntimeError: no tokenizer") as failure:
        convert(worker, tmp_path, "one")
    assert not isinstance(failure.value, ConversionError)


def test_stopping_ends_a_conversion_at_once(tmp_path: Path) -> None:
    worker = ConversionWorker(Settings(conversion_timeout=60.0))
    convert(worker, tmp_path, "before")
    threading.Timer(0.3, worker.stop).start()
    started = time.monotonic()
    with pytest.raises(ConversionError):
        convert(worker, tmp_path, "hang")
    assert time.monotonic() - started < 10


def test_the_process_ends_with_a_program_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "hang.txt").write_text("hang")
    program = f"""
import sys; sys.path[:] = {sys.path!r}
from pipelines import conversion_worker
from config import Settings
conversion_worker._PROGRAM = {conversion_worker._PROGRAM!r}
worker = conversion_worker.ConversionWorker(Settings())
worker.start(); worker._await_ready()
print(worker._process.pid, flush=True)
worker.convert({str(tmp_path / "hang.txt")!r}, meta={{}})
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)
        parent.kill()
    assert psutil.wait_procs([child], timeout=10)[0]
