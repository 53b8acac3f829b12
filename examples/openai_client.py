"""
OpenAI's own client, pointed at Synapse: a streamed answer with its citations, and a follow-up in the same conversation.

    python synapse.py serve
    SYNAPSE_URL=http://127.0.0.1:8000 SYNAPSE_KEY=synapse_default.… python -m examples.openai_client

`python synapse.py keys create` makes the key. Needs nothing of Synapse but the package openai.
"""

import os

from openai import OpenAI

QUESTIONS = ("How long does a group visit last?", "And when must it be booked?")


def main() -> None:
    """Ask, show the answer while it is written, and ask on."""
    client = OpenAI(
        base_url=f"{os.environ.get('SYNAPSE_URL', 'http://127.0.0.1:8000')}/v1",
        api_key=os.environ.get("SYNAPSE_KEY", "not-needed"),  # as with serve --no-auth
    )
    session_id = None
    for question in QUESTIONS:
        print(f"> {question}")
        stream = client.chat.completions.create(
            model="synapse",
            messages=[{"role": "user", "content": question}],
            stream=True,
            extra_body={"session_id": session_id, "top_k": 5},  # what OpenAI's API has no name for
        )
        for chunk in stream:
            delta = chunk.choices[0].delta
            print(delta.content or "", end="", flush=True)
            for citation in getattr(delta, "citations", None) or []:  # with the last part
                print(f"\n  [{citation['number']}] {citation['source']}: {citation['quote']!r}", end="")
            session_id = getattr(chunk, "session_id", session_id)
        print()


if __name__ == "__main__":
    main()
