"""
Index documents that a program has, ask about them, and remove them again.

    python -m examples.index_from_python
"""

from haystack import Document

from config import Settings
from pipelines.answering import Assistant
from pipelines.api import delete_source, index_documents

TICKETS = [
    Document(
        content="The pump of the fountain stops when the water is colder than four degrees. It starts again by itself.",
        meta={"source": "ticket/101", "title": "Fountain stops", "team": "operations", "year": 2025},
    ),
    Document(
        content="The gate's light stays on all night. The timer was set to summer time; it now follows the sun.",
        meta={"source": "ticket/102", "title": "Light at the gate", "team": "operations", "year": 2025},
    ),
]


def main() -> None:
    """The same ledger as for files: what did not change is not embedded again."""
    settings = Settings.from_env()
    for _ in range(2):
        result = index_documents(TICKETS, settings=settings)
        print("added", result.added, "unchanged", result.unchanged)

    answer = Assistant(settings).ask("Why does the fountain's pump stop?", filters='team == "operations"')
    print(answer.text, [citation.source for citation in answer.citations])

    for document in TICKETS:
        delete_source(document.meta["source"], settings=settings)


if __name__ == "__main__":
    main()
