"""Generator of the dashboard for Grafana that the chart brings, in version 39 of its schema (Grafana 11 and later).

Each panel says in its description what to do with what it shows. `tests/integration/monitoring` holds that every query
returns data from a Prometheus that scrapes both programs.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
"""Columns of Grafana's grid."""
_HEIGHT: Final = 8
_STAT_HEIGHT: Final = 4
OF_MODEL: Final = 'namespace=~"$namespace", model=~"$model"'
"""Matchers for the models that are chosen, in metrics of the gateway."""
_OF_HOOKS: Final = 'namespace=~"$namespace", name=~"$model"'
"""Matchers for the models that are chosen, in metrics of hooks."""


@dataclass(frozen=True, slots=True)
class Query:
    """Query of a panel."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Panel with a graph over time, or with one number."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    stacked: bool = False
    limit: float | None = None
    """Value from which on the panel is red."""


@dataclass(frozen=True, slots=True)
class Row:
    """Row of panels under a title."""

    title: str
    panels: Sequence[Panel]


def _rate(metric: str, by: str, matchers: str = OF_MODEL) -> str:
    """Return a query for how often something happens in a second."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str, matchers: str = OF_MODEL) -> str:
    """Return a query for the time below which this share of the requests are."""
    rate = f"sum by (le, {by}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval]))"
    return f"histogram_quantile({share}, {rate})"


def _quantiles(metric: str) -> tuple[Query, ...]:
    """Return queries for the times below which half and 95 % of the requests are, by backend."""
    return tuple(
        Query(_quantile(share, metric, "backend"), f"{{{{backend}}}} p{share * 100:.0f}") for share in (0.5, 0.95)
    )


def _share(metric: str, some: str, *, by: str = "") -> str:
    """Return a query for which percentage of a counter is in some of its series."""
    group = f" by ({by})" if by else ""
    part = f"sum{group} (rate({metric}{{{OF_MODEL}, {some}}}[$__rate_interval]))"
    return f"100 * {part} / sum{group} (rate({metric}{{{OF_MODEL}}}[$__rate_interval]))"


ROWS: Final = (
    Row(
        "Now",
        (
            Panel(
                "Models",
                "Models that the gateways serve, of those that are chosen above.",
                (Query(f"count(max by (namespace, model) (beamlit_gateway_arrived_requests_total{{{OF_MODEL}}}))"),),
                kind="stat",
            ),
            Panel(
                "Requests arriving",
                "Requests a second that arrive, wherever they go.",
                (Query(f"sum(rate(beamlit_gateway_arrived_requests_total{{{OF_MODEL}}}[$__rate_interval]))"),),
                unit="reqps",
                kind="stat",
            ),
            Panel(
                "Requests that fail",
                "Share of the requests that end with a status from 500 to 599. See the runbook of BeamlitRequestsFail.",
                (Query(_share("beamlit_gateway_requests_total", 'code=~"5.."')),),
                unit="percent",
                kind="stat",
                limit=5,
            ),
            Panel(
                "Served by the remote backend",
                "Share of the requests that the remote backend serves, by the split, by failover and by overflow.",
                (Query(_share("beamlit_gateway_requests_total", 'backend="remote"')),),
                unit="percent",
                kind="stat",
            ),
            Panel(
                "Gateways",
                "Gateways that Prometheus has metrics of.",
                (Query("count(beamlit_gateway_routes)"),),
                kind="stat",
            ),
            Panel(
                "Hooks",
                "Replicas of hooks that Prometheus has metrics of.",
                (Query("count(beamlit_hooks_in_flight_requests)"),),
                kind="stat",
            ),
        ),
    ),
    Row(
        "Requests",
        (
            Panel(
                "Requests arriving, by model",
                "Requests a second when they arrive. An autoscaler may follow this number.",
                (
                    Query(
                        _rate("beamlit_gateway_arrived_requests_total", "namespace, model"), "{{namespace}}/{{model}}"
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Responses, by status",
                "Requests a second when they end. A status of 499 is a client that has left.",
                (Query(_rate("beamlit_gateway_requests_total", "code"), "{{code}}"),),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Responses, by backend",
                "Requests a second by the backend that served them; 'none' is the gateway itself, with an error.",
                (Query(_rate("beamlit_gateway_requests_total", "backend"), "{{backend}}"),),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                "Requests that fail, by model",
                "Percentage of the requests that end with a status from 500 to 599.",
                (
                    Query(
                        _share("beamlit_gateway_requests_total", 'code=~"5.."', by="namespace, model"),
                        "{{namespace}}/{{model}}",
                    ),
                ),
                unit="percent",
            ),
            Panel(
                "In flight, by model",
                "Requests that are being served now, until the end of their responses.",
                (
                    Query(
                        f"sum by (namespace, model) (beamlit_gateway_in_flight_requests{{{OF_MODEL}}})",
                        "{{namespace}}/{{model}}",
                    ),
                ),
            ),
            Panel(
                "Requests by caller",
                "Requests a second by the name of the caller's API key, while access is on.",
                (Query(_rate("beamlit_gateway_caller_requests_total", "caller", ""), "{{caller}}"),),
                unit="reqps",
                stacked=True,
            ),
        ),
    ),
    Row(
        "Offloading",
        (
            Panel(
                "Split in force",
                "Percentage of a model's requests that the split sends to the remote backend, as gateways obey it.",
                (
                    Query(
                        f'max by (namespace, model) (beamlit_gateway_backend_weight{{{OF_MODEL}, backend="remote"}})',
                        "{{namespace}}/{{model}}",
                    ),
                ),
                unit="percent",
            ),
            Panel(
                "Decision and reason",
                "Percentage that hooks decided last, with its reason, for models with metrics.",
                (
                    Query(
                        f"max by (namespace, name, reason) (beamlit_hooks_offloading_percentage{{{_OF_HOOKS}}})",
                        "{{namespace}}/{{name}}: {{reason}}",
                    ),
                ),
                unit="percent",
            ),
            Panel(
                "Metrics against their targets",
                "Value of each metric of a model divided by its target: offloading begins at 1.",
                (
                    Query(
                        f"max by (namespace, name, index, metric) (beamlit_hooks_metric_ratio{{{_OF_HOOKS}}})",
                        "{{namespace}}/{{name}}: {{metric}}",
                    ),
                ),
                unit="none",
            ),
            Panel(
                "Elsewhere than the split says",
                "Requests a second that went to another backend than the split says, by reason.",
                (Query(_rate("beamlit_gateway_diverted_requests_total", "reason"), "{{reason}}"),),
                unit="reqps",
            ),
        ),
    ),
    Row(
        "Times and tokens",
        (
            Panel(
                "Time to the first byte",
                "Seconds from a request to the head of its response: half of the requests are below p50.",
                _quantiles("beamlit_gateway_first_byte_seconds"),
                unit="s",
            ),
            Panel(
                "Time to the first token",
                "Seconds from a request to the first event of its event stream.",
                _quantiles("beamlit_gateway_first_token_seconds"),
                unit="s",
            ),
            Panel(
                "Time between tokens",
                "Mean seconds between two events of an event stream.",
                _quantiles("beamlit_gateway_between_tokens_seconds"),
                unit="s",
            ),
            Panel(
                "Time to the end",
                "Seconds from a request to the end of its response.",
                _quantiles("beamlit_gateway_request_seconds"),
                unit="s",
            ),
            Panel(
                "The gateway's own time",
                "Seconds from a request to the start of its first attempt, without the wait in the queue.",
                _quantiles("beamlit_gateway_overhead_seconds"),
                unit="s",
            ),
            Panel(
                "Tokens",
                "Tokens a second that responses name: input for those of prompts, output for those of completions.",
                (Query(_rate("beamlit_gateway_tokens_total", "backend, direction"), "{{backend}} {{direction}}"),),
                stacked=True,
            ),
            Panel(
                "Estimated cost of an hour, by model",
                "What the remote backend costs in an hour at the present rate, by its prices and in their currency.",
                (
                    Query(
                        f"3600 * {_rate('beamlit_gateway_estimated_cost_total', 'namespace, model')}",
                        "{{namespace}}/{{model}}",
                    ),
                ),
                unit="none",
                stacked=True,
            ),
        ),
    ),
    Row(
        "Backends",
        (
            Panel(
                "Failed attempts, by cause",
                "Attempts a second that failed; another backend may have served the request. The causes are in"
                " docs/reference/errors.md.",
                (Query(_rate("beamlit_gateway_upstream_errors_total", "backend, cause"), "{{backend}}: {{cause}}"),),
                unit="reqps",
            ),
            Panel(
                "Circuit breakers",
                "Worst state among the gateways: 0 closed, 1 half-open, 2 open, by which requests go elsewhere.",
                (
                    Query(
                        f"max by (namespace, model, backend) (beamlit_gateway_breaker_state{{{OF_MODEL}}})",
                        "{{namespace}}/{{model}} {{backend}}",
                    ),
                ),
                unit="none",
            ),
            Panel(
                "Cool-downs",
                "Seconds until a backend gets requests again that has asked for a pause.",
                (
                    Query(
                        f"max by (namespace, model, backend) (beamlit_gateway_cool_down_seconds{{{OF_MODEL}}})",
                        "{{namespace}}/{{model}} {{backend}}",
                    ),
                ),
                unit="s",
            ),
            Panel(
                "Health checks",
                "1 where a backend passes its health checks, or has none, at all gateways.",
                (
                    Query(
                        f"min by (namespace, model, backend) (beamlit_gateway_backend_healthy{{{OF_MODEL}}})",
                        "{{namespace}}/{{model}} {{backend}}",
                    ),
                ),
                unit="none",
            ),
            Panel(
                "Drills",
                "1 where the last drill at a remote backend, or a request since, succeeded at a gateway at least.",
                (
                    Query(
                        f"max by (namespace, model, backend) (beamlit_gateway_drill_success{{{OF_MODEL}}})",
                        "{{namespace}}/{{model}} {{backend}}",
                    ),
                ),
                unit="none",
            ),
            Panel(
                "In flight and in the queue, by backend",
                "Requests that backends serve now, and those that wait for a place.",
                (
                    Query(
                        f"sum by (backend) (beamlit_gateway_backend_in_flight_requests{{{OF_MODEL}}})",
                        "{{backend}} in flight",
                    ),
                    Query(
                        f"sum by (backend) (beamlit_gateway_queued_requests{{{OF_MODEL}}})", "{{backend}} in the queue"
                    ),
                ),
            ),
            Panel(
                "Limit of streams",
                "Streams that may be in flight so that first events come in time, and those that are, for models with"
                " overflow.firstTokenSeconds.",
                (
                    Query(f"sum by (model) (beamlit_gateway_stream_limit{{{OF_MODEL}}})", "{{model}} limit"),
                    Query(f"sum by (model) (beamlit_gateway_streams_in_flight{{{OF_MODEL}}})", "{{model}} in flight"),
                ),
            ),
            Panel(
                "Not tried again",
                "Failed attempts a second that were not retried, by what prevented it.",
                (Query(_rate("beamlit_gateway_retries_refused_total", "why"), "{{why}}"),),
                unit="reqps",
            ),
            Panel(
                "Token requests",
                "Requests a second for OAuth 2.0 tokens, by result.",
                (Query(_rate("beamlit_gateway_token_requests_total", "result", ""), "{{result}}"),),
                unit="reqps",
            ),
        ),
    ),
    Row(
        "Gateways",
        (
            Panel(
                "Refused before a route",
                "Requests a second that were refused before a route was found, by error code.",
                (Query(_rate("beamlit_gateway_refused_requests_total", "code", ""), "{{code}}"),),
                unit="reqps",
            ),
            Panel(
                "Connections",
                "Open connections of clients, and connections to backends.",
                (
                    Query("sum(beamlit_gateway_client_connections)", "clients"),
                    Query("sum by (state) (beamlit_gateway_upstream_connections)", "backends: {{state}}"),
                ),
            ),
            Panel(
                "Memory for requests and responses",
                "Memory that is held for bodies, and the limit of one gateway.",
                (
                    Query('max(beamlit_gateway_memory_budget_bytes{state="used"})', "used by the fullest"),
                    Query('max(beamlit_gateway_memory_budget_bytes{state="limit"})', "limit"),
                ),
                unit="bytes",
            ),
            Panel(
                "Age and errors of routes",
                "Seconds since a gateway's routes were known to be up to date, and documents that are not in force.",
                (
                    Query("max(beamlit_gateway_table_age_seconds)", "age in seconds"),
                    Query("max(beamlit_gateway_document_errors)", "documents and sources with an error"),
                ),
            ),
            Panel(
                "Days until certificates end",
                "Days left of each certificate that is used: of listeners, servers, clients and authorities.",
                (
                    Query(
                        "(min by (certificate, name) (beamlit_gateway_certificate_end_timestamp_seconds"
                        " or beamlit_hooks_certificate_end_timestamp_seconds) - time()) / 86400",
                        "{{certificate}} {{name}}",
                    ),
                ),
                unit="d",
            ),
        ),
    ),
    Row(
        "Hooks",
        (
            Panel(
                "Responses to Metacontroller",
                "Responses a second, by hook and status. Other statuses than 200 change nothing in the cluster.",
                (Query(_rate("beamlit_hooks_requests_total", "hook, code", ""), "{{hook}} {{code}}"),),
                unit="reqps",
            ),
            Panel(
                "Time of responses",
                "Seconds below which 95 % of the responses to Metacontroller are. It waits 10 s at most.",
                (Query(_quantile(0.95, "beamlit_hooks_request_seconds", "hook", ""), "{{hook}} p95"),),
                unit="s",
            ),
            Panel(
                "Requests to sources of metrics",
                "Requests a second to sources of metrics and to the API server, by status.",
                (Query(_rate("beamlit_hooks_source_requests_total", "api, code", ""), "{{api}} {{code}}"),),
                unit="reqps",
            ),
            Panel(
                "Time of sources",
                "Seconds below which 95 % of the responses of sources of metrics are. A sync waits 3 s for them.",
                (Query(_quantile(0.95, "beamlit_hooks_source_seconds", "api", ""), "{{api}} p95"),),
                unit="s",
            ),
        ),
    ),
)


def dashboard() -> str:
    """Return the dashboard as JSON."""
    whole = {
        "uid": "beamlit",
        "title": "Beamlit",
        "description": "Where the requests of models go, why, and how gateways, backends and hooks are.",
        "tags": ["beamlit"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }
    return json.dumps(whole, indent=2) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    """Yield the variables: the Prometheus that is asked, and the models that are looked at."""
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "multi": False,
        "includeAll": False,
        "hide": 0,
        "options": [],
        "current": {},
    }
    metric = "beamlit_gateway_arrived_requests_total"
    yield _variable("namespace", "Namespace", f"label_values({metric}, namespace)")
    yield _variable("model", "Model", f'label_values({metric}{{namespace=~"$namespace"}}, model)')


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "hide": 0,
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panels() -> Iterator[dict[str, Any]]:
    """Yield the rows and their panels, each at its place in the grid."""
    number, top = 1, 0
    for row in ROWS:
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        number, top = number + 1, top + 1
        is_stat = row.panels[0].kind == "stat"
        in_line = len(row.panels) if is_stat else 2
        width, height = _WIDTH // in_line, _STAT_HEIGHT if is_stat else _HEIGHT
        for index, panel in enumerate(row.panels):
            line, column = divmod(index, in_line)
            yield _panel(panel, number, {"h": height, "w": width, "x": column * width, "y": top + line * height})
            number += 1
        top += -(-len(row.panels) // in_line) * height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": "red", "value": panel.limit})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.kind == "stat":
        options: dict[str, Any] = {
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "auto",
        }
    else:
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                "range": True,
                "instant": False,
            }
            for index, query in enumerate(panel.queries)
        ],
    }
