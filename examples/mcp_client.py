"""
An agent's side of the Model Context Protocol: which tools Synapse has, what they find, what they answer.

    python synapse.py serve
    SYNAPSE_URL=http://127.0.0.1:8000 SYNAPSE_KEY=synapse_default.… python -m examples.mcp_client

`python synapse.py keys create` makes the key. Needs nothing of Synapse but the package mcp.
"""

import asyncio
import os

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

URL = f"{os.environ.get('SYNAPSE_URL', 'http://127.0.0.1:8000')}/mcp"
QUESTION = "How long does a group visit last?"


async def main() -> None:
    """List the tools, and call each."""
    headers = {"Authorization": f"Bearer {os.environ.get('SYNAPSE_KEY', 'not-needed')}"}
    async with (
        httpx.AsyncClient(headers=headers, timeout=60) as http,
        streamable_http_client(URL, http_client=http) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        for tool in (await session.list_tools()).tools:
            print(f"{tool.name}: {tool.description}")

        found = await session.call_tool("search_documents", {"question": QUESTION, "top_k": 3})
        for document in (found.structuredContent or {})["documents"]:
            print(f"  {document['score']:.2f}  {document['meta']['source']}")

        answered = await session.call_tool("answer_question", {"question": QUESTION})
        answer = answered.structuredContent or {}
        print(answer["answer"])
        for citation in answer["citations"]:
            print(f"  [{citation['number']}] {citation['source']}: {citation['quote']!r}")


if __name__ == "__main__":
    asyncio.run(main())
