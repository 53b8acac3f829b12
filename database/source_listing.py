"""The sources of an index, page by page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from database.sql import statements

if TYPE_CHECKING:
    from database.ledger import Ledger

_SQL = statements(Path(__file__).with_suffix(".sql"))


def list_sources(ledger: Ledger, *, after: str = "", limit: int = 100) -> list[dict[str, Any]]:
    """
    Sources as `Ledger.sources` has them, by name.

    :param after: The last name of the page before; empty means from the first.
    :param limit: How many at most.
    """
    return ledger.database.read(_SQL["sources_after"], {"model": ledger.model.name, "after": after, "limit": limit})
