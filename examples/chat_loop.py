"""
A chat in thirty lines: what was said before makes a follow-up understood.

    python -m examples.chat_loop
"""

from config import Settings
from pipelines.answering import Assistant


def show(part: str) -> None:
    """Called with each part of the answer, as it is written."""
    print(part, end="", flush=True)


def main() -> None:
    """Answer line after line, until an empty one or Ctrl-D."""
    assistant = Assistant(Settings.from_env())
    history: list[dict[str, str]] = []
    while question := input("\n> ").strip():
        answer = assistant.ask(question, history=history, on_text=show)
        for citation in answer.citations:
            print(f"\n  [{citation.number}] {citation.source}: {citation.quote!r}", end="")
        history += [{"role": "user", "content": question}, {"role": "assistant", "content": answer.text}]


if __name__ == "__main__":
    try:
        main()
    except EOFError:
        print()
