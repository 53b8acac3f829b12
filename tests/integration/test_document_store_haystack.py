"""Haystack's own suites for document stores, whole, sync and async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from haystack import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing import document_store as sync_suite
from haystack.testing import document_store_async as async_suite
from haystack.utils import Secret

from database.document_store import SynapseDocumentStore
from tests.support.partitions import PARTITIONS, partitioned


@pytest.fixture(scope="module", params=PARTITIONS)
def made_store(owner_conninfo: str, request: pytest.FixtureRequest) -> Iterator[SynapseDocumentStore]:
    partitioned(owner_conninfo, "haystack_suites", dimension=768, partitions=request.param)
    store = SynapseDocumentStore(
        connection_string=Secret.from_token(owner_conninfo), table_name="haystack_suites", embedding_dimension=768
    )
    store.create_table()
    yield store
    store.delete_table()
    store.close()


@pytest.fixture
def document_store(made_store: SynapseDocumentStore) -> SynapseDocumentStore:
    made_store.delete_all_documents()
    return made_store


class Comparison:
    """The table has no order, and its embeddings are float32."""

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert [d.id for d in sorted(received, key=lambda d: d.id)] == sorted(d.id for d in expected)
        by_id = {document.id: document for document in expected}
        for document in received:
            wanted = by_id[document.id].to_dict(flatten=False)
            found = document.to_dict(flatten=False)
            assert found.pop("embedding") == pytest.approx(wanted.pop("embedding"))
            assert found == wanted


class TestSync(
    Comparison,
    sync_suite.DocumentStoreBaseExtendedTests,
    sync_suite.CountDocumentsByFilterTest,
    sync_suite.CountUniqueMetadataByFilterTest,
    sync_suite.GetMetadataFieldsInfoTest,
    sync_suite.GetMetadataFieldMinMaxTest,
    sync_suite.GetMetadataFieldUniqueValuesTest,
):
    @pytest.fixture
    def document_store(self, document_store: SynapseDocumentStore) -> SynapseDocumentStore:
        return document_store

    def test_write_documents(self, document_store: SynapseDocumentStore) -> None:
        """Without a policy, a document that exists is refused."""
        documents = [Document(id="1")]
        assert document_store.write_documents(documents) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents(documents, DuplicatePolicy.NONE)


class TestAsync(
    Comparison,
    async_suite.DeleteAllAsyncTest,
    async_suite.CountDocumentsAsyncTest,
    async_suite.CountDocumentsByFilterAsyncTest,
    async_suite.CountUniqueMetadataByFilterAsyncTest,
    async_suite.DeleteByFilterAsyncTest,
    async_suite.UpdateByFilterAsyncTest,
    async_suite.WriteDocumentsAsyncTest,
    async_suite.DeleteDocumentsAsyncTest,
    async_suite.GetMetadataFieldsInfoAsyncTest,
    async_suite.GetMetadataFieldMinMaxAsyncTest,
    async_suite.GetMetadataFieldUniqueValuesAsyncTest,
    async_suite.FilterDocumentsAsyncTest,
):
    @pytest.fixture(autouse=True)
    async def _closed(self, document_store: SynapseDocumentStore) -> AsyncIterator[None]:
        yield
        await document_store.close_async()

    async def test_write_documents_async(self, document_store: SynapseDocumentStore) -> None:
        """Without a policy, a document that exists is refused."""
        documents = [Document(id="1")]
        assert await document_store.write_documents_async(documents) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async(documents, DuplicatePolicy.NONE)


def test_every_class_of_the_suites_is_run() -> None:
    """A class that a later Haystack adds is missed here, not silently."""
    for suite, run in ((sync_suite, TestSync), (async_suite, TestAsync)):
        known = {c for name, c in vars(suite).items() if name.endswith("Test") and c.__module__ == suite.__name__}
        assert known
        assert all(issubclass(run, c) for c in known), known - set(run.__mro__)
