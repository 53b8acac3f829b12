"""What is decided of a Chroma server before it is asked."""

from __future__ import annotations

import sys

import pytest

from database.errors import ConfigurationError, InvalidInputError
from migration.sources.chroma_connection import Connection
from migration.sources.chroma_server import ChromaServer
from migration.sources.frozen_ids import FrozenIds


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:9000", "http://localhost:9000"),
        ("http://localhost", "http://localhost:8000"),
        ("https://chroma.example.org/", "https://chroma.example.org:443"),
        ("https://example.org/chroma/", "https://example.org:443/chroma"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address(url: str, shown: str) -> None:
    assert Connection(url).location == shown


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http://h:port",
        "http://u:secret@h",
        "http://h?t=secret",
    ],
)
def test_no_address(url: str) -> None:
    with pytest.raises(InvalidInputError, match="http://localhost:8000") as raised:
        Connection(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("token", ["", "secret\n", "sécret", "secret\0"])
def test_a_token_that_cannot_be_sent_is_not_quoted(token: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Connection("http://localhost", token=token)
    assert "cret" not in str(raised.value)


def test_without_the_client_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(ConfigurationError, match="pip install chromadb-client=="):
        ChromaServer("http://localhost")


def test_ids_are_kept_in_their_order() -> None:
    awkward = ["b", "", "a\0b", "a", "é", "e\u0301", "\U0001f600", "\uffff", "L" * 500]
    ids = FrozenIds()
    assert ids.add("one", iter([awkward[:4], awkward[4:]])) == len(awkward)
    assert ids.add("other", iter([["a"]])) == 1, "another part's ids are others"
    kept = [id for page in ids.pages("one", size=4) for id in page]
    assert kept == sorted(awkward)
    assert [len(page) for page in ids.pages("one", size=4)] == [4, 4, 1]
    assert [id for page in ids.pages("one", size=2, after=7) for id in page] == kept[7:]
    assert list(ids.pages("none", size=4)) == []
    ids.close()


def test_an_id_that_comes_twice_is_told() -> None:
    ids = FrozenIds()
    assert ids.add("one", iter([["a", "b"], ["a"]])) is None
    assert list(ids.pages("one", size=4)) == [], "nothing is kept of them"
    ids.close()
