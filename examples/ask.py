"""
Ask in three lines, and go on with a follow-up.

    python -m examples.ask

From a program in another folder: put this folder first on PYTHONPATH.
"""

from config import Settings
from pipelines.answering import Assistant


def main() -> None:
    """A question, what its answer rests on, and a question that needs the first one to be understood."""
    assistant = Assistant(Settings.from_env())
    answer = assistant.ask("How long does a group visit last?", filters="year == 2025")
    print(answer.text)

    for citation in answer.citations:
        print(f"  [{citation.number}] {citation.source}, {citation.heading}: {citation.quote!r}")
    print("  supported:", answer.supported, "· extractive:", answer.extractive, "· ms:", answer.timings_ms["total"])

    history = [
        {"role": "user", "content": "How long does a group visit last?"},
        {"role": "assistant", "content": answer.text},
    ]
    answer = assistant.ask("And when must it be booked?", history=history, filters="year == 2025")
    print(answer.text)


if __name__ == "__main__":
    main()
