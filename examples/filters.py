"""
One filter, three ways to write it; and a scope that no caller can leave.

    python -m examples.filters
"""

from config import Settings
from pipelines.answering import Assistant

FILTERS = [
    'lang == "en" and year >= 2024 and title != "Draft"',
    {"lang": "en", "year": {">=": 2024}, "title": {"!=": "Draft"}},
    {
        "operator": "AND",
        "conditions": [
            {"field": "meta.lang", "operator": "==", "value": "en"},
            {"field": "meta.year", "operator": ">=", "value": 2024},
            {"field": "meta.title", "operator": "!=", "value": "Draft"},
        ],
    },
]


def main() -> None:
    """Search with each filter, then inside a scope."""
    settings = Settings.from_env()
    assistant = Assistant(settings)
    for filters in FILTERS:
        found = assistant.search("opening hours", filters=filters, top_k=3)
        print([document.meta["source"].rsplit("/", 1)[-1] for document in found.documents])

    # Whoever serves several teams sets the scope from who is asking, never from what they send.
    scoped = Assistant(settings, scope={"lang": "de"})
    found = scoped.search("opening hours", filters='lang == "en" or year > 0', top_k=3)
    print([document.meta["lang"] for document in found.documents])


if __name__ == "__main__":
    main()
