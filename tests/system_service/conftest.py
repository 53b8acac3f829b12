"""What the tests of the running service share: a server with two tenants, their documents, users and keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving_client import Client
from benchmarks.serving_process import Ground, ServiceProcess, client_of
from benchmarks.serving_script import TENANTS, documents

USERS = 4
"""Users of each tenant."""


@pytest.fixture(scope="session")
def ground(short_folder: Path) -> Iterator[Ground]:
    """A database server of its own, where each tenant's warehouses are indexed; what it commits outlives its processes."""
    quick = {"fsync": "off", "full_page_writes": "off"}
    made = Ground(short_folder / f"ground-{os.urandom(4).hex()}", settings=quick)
    for tenant in TENANTS:
        made.tenant(tenant, documents(tenant))
        made.user(tenant, "founder")  # the service does not start where nobody has a key
    yield made
    made.close()


@pytest.fixture(scope="module")
def keys(ground: Ground) -> dict[str, list[str]]:
    """Keys of each tenant, each of another user; a module's own, whose conversations are all that they have."""
    module = os.urandom(4).hex()
    return {tenant: [ground.user(tenant, f"user{n}-{module}")[1] for n in range(USERS)] for tenant in TENANTS}


def users(running: ServiceProcess, keys: dict[str, list[str]]) -> dict[str, list[Client]]:
    """Each key as a client of its own, all over one pool of connections."""
    http = client_of(running)
    return {tenant: [Client(http, key) for key in own] for tenant, own in keys.items()}
