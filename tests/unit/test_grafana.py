"""The dashboard against what /metrics really exposes, PromQL's grammar, and what Grafana needs of a dashboard."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from components.answers import Answer
from database.connection import Database
from database.reading import Replica
from pipelines.conversing import Reply
from serving.observability import metrics
from tests.tcp_server import PROJECT

GRAFANA = PROJECT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "synapse.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
DRAWN = [panel for panel in PANELS if panel["type"] != "row"]
OF_PROMETHEUS = {"job", "instance", "le"}
"""Labels that Prometheus adds to each series, and the buckets' own."""

EXPRESSIONS = [(panel["title"], target["expr"]) for panel in DRAWN for target in panel["targets"]]
VARIABLES = {"$__rate_interval": "1m", "$job": "synapse", "$instance": "app:8000"}


async def exposed() -> dict[str, set[str]]:
    """Every series name of the exposition, with its labels, once all that is counted was counted and there is a standby."""
    metrics.observe_request("GET", "/ask", 200, 0.1)
    answer = Answer(text="x", supported=True, extractive=False, timings_ms={"total": 1.0})
    reply = Reply(session_id=None, message_id=None, answer=answer, tokens_in=1, tokens_out=1)

    async def parts() -> Any:
        yield "x"
        yield reply

    assert [part async for part in metrics.observed(parts())]
    database = Database("host=127.0.0.1 port=1 user=nobody")
    replica = Replica(database, "host=127.0.0.1 port=2 user=nobody", max_lag=1.0)
    replica.reads["standby", "fresh"] += 1
    database.replica = replica
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(metrics.exposition(database, upload_jobs=0).decode()):
        for sample in family.samples:
            found[sample.name] |= set(sample.labels)
        if not family.samples:  # a standby that is away tells nothing, but the family is there
            found[family.name] |= set()
    return found


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def names_and_labels(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each series that an expression reads, with the labels that it picks by and that it is summed by."""
    by = {label for found in re.findall(r"by \(([^)]*)\)", expression) for label in re.findall(r"\w+", found)}
    for name, matchers in re.findall(r"(synapse_\w+)\{([^}]*)\}", expression):
        yield name, set(re.findall(r"(\w+)\s*[!=]", matchers)) | by


async def test_every_series_and_label_is_exposed() -> None:
    known = await exposed()
    asked = [one for _, expression in EXPRESSIONS for one in names_and_labels(expression)]
    assert len(asked) >= len(EXPRESSIONS)
    for name, labels in asked:
        assert name in known, name
        assert labels - OF_PROMETHEUS <= known[name], name
        assert ("le" in labels) == name.endswith("_bucket"), name


async def test_every_metric_is_on_the_dashboard() -> None:
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for _, text in EXPRESSIONS for name, _ in names_and_labels(text)}
    known = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in await exposed()}
    assert known - {re.sub(r"_total$", "", name) for name in asked} <= asked


async def test_every_metric_is_on_the_page() -> None:
    page = (PROJECT / "docs" / "serving.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"(?m)^\| (synapse_\w+) \|([^|]*)\|", page))
    known: dict[str, set[str]] = defaultdict(set)
    for name, labels in (await exposed()).items():
        if not name.endswith("_created"):
            known[re.sub(r"_(bucket|sum|count)$", "", name)] |= labels - {"le"}
    assert set(rows) == set(known)
    for name, cell in rows.items():
        assert set(re.findall(r"\w+", re.sub(r":.*", "", cell))) == known[name], name


@pytest.mark.parametrize(("panel", "expression"), EXPRESSIONS)
def test_expressions_are_promql(panel: str, expression: str) -> None:
    import promql_parser

    promql_parser.parse(filled_in(expression))


def test_a_wrong_expression_is_none() -> None:
    import promql_parser

    with pytest.raises(ValueError, match="unclosed"):
        promql_parser.parse("sum by (le (rate(synapse_requests_total[1m]))")


def test_ids_are_unique() -> None:
    assert not [number for number, count in Counter(panel["id"] for panel in PANELS).items() if count > 1]
    for panel in DRAWN:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_panels_do_not_overlap_and_stay_within_24_columns() -> None:
    for panel in PANELS:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        assert place["h"] > 0
    for one, other in combinations(PANELS, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = (
            a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        )  # fmt: skip
        assert apart, (one["title"], other["title"])


def test_the_data_source_is_a_variable_everywhere() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    used = [panel["datasource"] for panel in DRAWN]
    used += [target["datasource"] for panel in DRAWN for target in panel["targets"]]
    used += [variables[name]["datasource"] for name in ("job", "instance")]
    assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in used)
    names = set(re.findall(r"\$\{?(\w+)", " ".join(expression for _, expression in EXPRESSIONS)))
    assert names == {"job", "instance", "__rate_interval"} <= {*variables, "__rate_interval"}


def test_it_can_be_imported() -> None:
    assert DASHBOARD["uid"] == "synapse"
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36  # from which on data sources are objects
    assert "id" not in DASHBOARD  # it is the database's that imports it
    assert {panel["type"] for panel in PANELS} == {"row", "stat", "timeseries"}


def test_provisioning() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/synapse.yml").read_text())["providers"]
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    mounted = "\n".join(map(str, compose["grafana"]["volumes"]))
    assert provider["options"]["path"] in mounted
    assert "./deploy/grafana/dashboards" in mounted
    assert "./deploy/grafana/provisioning" in mounted
    assert "prometheus" in compose
    scraped = yaml.safe_load((PROJECT / "deploy/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
