"""The first half of the pipeline, which finds documents, as Hayhooks calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.answers import document_to_dict
from serving.callers import caller
from serving.hayhooks_host import BasePipelineWrapper

if TYPE_CHECKING:
    from serving.service import Service


class SearchingWrapper(BasePipelineWrapper):
    """
    Finds documents of the tenant of the request's caller.

    :param service: What finds.
    """

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def setup(self) -> None:
        """Nothing: each tenant's pipeline is the service's to build."""

    async def run_api_async(
        self, question: str, filters: str | dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, Any]:
        """
        Find documents, whether or not they answer the question.

        :param question: What to look for.
        :param filters: An expression or a Haystack filter.
        :param top_k: How many documents.
        """
        found = await self._service.search(caller(), question, filters=filters, top_k=top_k)
        return {"documents": [document_to_dict(one) for one in found.documents], "timings_ms": found.timings_ms}
