"""
Random requests after the OpenAPI description, with a valid key: 10,000 of them with `SYNAPSE_FUZZ=10000`, else a few hundred.

Whatever is asked, the answer is one that the description knows, in its form, and never an error of the service's own.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from benchmarks.serving_process import Ground, ServiceProcess, service, settled
from benchmarks.serving_script import TENANTS, reply
from tests.fake_llm import FakeLanguageModel

pytestmark = [pytest.mark.system, pytest.mark.slow]

REQUESTS = int(os.environ.get("SYNAPSE_FUZZ", "400"))
CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def fuzzed(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with FakeLanguageModel(reply) as model:
        roomy = {"LLM_BASE_URL": model.url, "SERVE_REQUESTS_PER_MINUTE": "1000000"}
        with service(ground, tmp_path_factory.mktemp("service") / "log", **roomy) as running:
            yield running


@pytest.mark.timeout(3600)
def test_random_requests(fuzzed: ServiceProcess, ground: Ground, keys: dict[str, list[str]]) -> None:
    load_all_checks()
    headers = {"Authorization": f"Bearer {keys[TENANTS[0]][0]}"}
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json", headers=headers)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 10
    statuses: Counter[int] = Counter()
    for turn in itertools.count():  # operations that take little have few different requests
        for operation in operations:
            fuzz(operation, headers, REQUESTS // len(operations) + 1, statuses, turn)
        if sum(statuses.values()) >= REQUESTS:
            break
    assert statuses[200] > REQUESTS / 50, f"some were expected to be what the service takes: {statuses}"
    assert {status for status in statuses if status >= 500} <= {502, 503, 504}
    assert fuzzed.unexplained() == []
    assert "exception" not in {key for record in fuzzed.records() for key in record}
    assert settled(ground) == []
    assert httpx.get(f"{fuzzed.url}/ready").status_code == 200


def fuzz(
    operation: schemathesis.APIOperation, headers: dict[str, str], count: int, statuses: Counter[int], turn: int
) -> None:
    """Send random requests of an operation, valid and invalid ones, and hold each answer against the description."""
    modes = schemathesis.GenerationMode
    quiet = [
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ]

    @seed(turn)
    @given(case=operation.as_strategy(modes.POSITIVE) | operation.as_strategy(modes.NEGATIVE))
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=quiet,
    )
    def send(case: schemathesis.Case) -> None:
        response = case.call(headers=headers, timeout=60)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=list(CHECKS))

    send()
