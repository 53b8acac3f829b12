"""
How much a cold `ask` costs over what cannot be avoided: importing the libraries and loading the model.

    python -m benchmarks.cold_ask [--rounds 3]

Asks the default database, which must have been indexed (`make demo` does). The server is stopped in between.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from config import PROJECT

FLOOR = (
    "from components.embedders import TextEmbedder; import haystack, psycopg; "
    "e = TextEmbedder(); e.warm_up(); e.run(text='question')"
)


def seconds(*command: str) -> float:
    """How long a process takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure both alternately, and print their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    ask = ("synapse.py", "ask", "How much does a ticket cost for a child?")
    seconds("-c", FLOOR)  # the first one also reads the libraries from disk
    pairs = [(seconds("-c", FLOOR), seconds(*ask)) for _ in range(rounds)]
    floor, cold = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"imports and model {floor:.2f} s   cold ask {cold:.2f} s   ratio {cold / floor:.2f}")


if __name__ == "__main__":
    main()
