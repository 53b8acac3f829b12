"""
Three questions to the indexed documentation and examples; `make demo` indexes both and runs this.

    python synapse.py index docs examples/documents
    python -m examples.demo
"""

from commands.ask import answer_text
from config import Settings
from pipelines.answering import Assistant

QUESTIONS = [
    ("How much does a ticket cost for a child?", "year == 2025"),  # the handbooks of 2023 and 2025 differ
    ("Which passages are dropped before a question is answered?", None),
    ("What is the capital of Mongolia?", None),  # the documents do not say
]

NEXT = """
Next:
  python synapse.py index PATH…       your own files
  python synapse.py ask "…"           a question
  python synapse.py chat              a conversation; /help says what it can do
"""


def main() -> None:
    """Ask, one after the other, in one process."""
    assistant = Assistant(Settings.from_env())
    for question, filters in QUESTIONS:
        print(f"\n> {question}" + (f"   [{filters}]" if filters else ""))
        print(answer_text(assistant.ask(question, filters=filters)))
    print(NEXT)


if __name__ == "__main__":
    main()
