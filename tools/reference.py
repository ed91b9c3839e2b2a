"""Generator of the reference pages: every field of a schema with its type, default, bounds and description."""

import ast
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from gateway.api.v1alpha1 import RouteDocument
from hooks import reasons
from hooks.offloading import measures, targets
from hooks.offloading import rules as offloading

Schema = Mapping[str, Any]

EXAMPLE: Final = {
    "apiVersion": "gateway.beamlit.com/v1alpha1",
    "backends": [
        {"id": "local", "port": 80, "service": "demo-local", "weight": 80},
        {
            "credentials": {"oauth2": {"name": "demo-remote"}},
            "headers": {
                "set": {"x-team": "search"},
                "setFrom": {"x-api-key": {"key": "apiKey", "name": "demo-remote"}},
            },
            "host": "models.example.com",
            "id": "remote",
            "model": "llama-3-8b",
            "pathPrefix": "/my-workspace/llama-3-8b",
            "scheme": "https",
            "weight": 20,
        },
    ],
    "limits": {"bodyBytes": 1048576},
    "name": "demo",
    "serviceNames": ["demo", "demo-gateway"],
    "split": {"percentage": 20, "reason": "Override"},
    "timeouts": {"firstByte": 120.0},
}
"""Example on the page of the route document, in canonical form but for its hash."""

_INTRODUCTION: Final = """\
The controller writes one ConfigMap for every ModelDeployment, with the label `gateway.beamlit.com/route: v1alpha1` and
the key `route.json`. The gateway serves from it. Two documents with the same meaning have the same bytes: keys are
sorted, and fields equal to their default are left out. A field that a gateway does not know is ignored and counted. A
document that names something under `requires` which the gateway does not know is rejected, and the last good one stays
in force."""
_MEASURES: Final = """\
A metric is compared with its target as a ratio. At 1 the metric has reached its target."""
_GENERATED: Final = "<!-- Generated from {source} by `make generate`. -->\n"
_TABLE_HEAD: Final = ("| field | type | default | meaning |", "| --- | --- | --- | --- |")
_BOUNDS: Final = (("minimum", "≥ {}"), ("maximum", "≤ {}"), ("maxLength", "at most {} characters"))


def crd_reference(definitions: Sequence[Schema]) -> str:
    """Return the page of the custom resources."""
    lines = [
        _GENERATED.format(source="hooks/api/"),
        "# Custom resources",
        "",
        "A field that is marked with `*` is required where its object is set.",
    ]
    for definition in definitions:
        version = definition["spec"]["versions"][0]
        schema = version["schema"]["openAPIV3Schema"]
        names = definition["spec"]["names"]
        lines += [
            "",
            f"## {names['kind']}",
            "",
            schema["description"],
            "",
            f"`apiVersion: {definition['spec']['group']}/{version['name']}`, short name `{names['shortNames'][0]}`.",
        ]
        for part in ("spec", "status"):
            node = schema["properties"][part]
            lines += ["", f"### {names['kind']} {part}", "", *_TABLE_HEAD, *_rows(node, part)]
            rules = list(_rules(node, part))
            if rules:
                lines += ["", "Rules:", "", *rules]
    return "\n".join(lines) + "\n"


def _rows(node: Schema, path: str) -> Iterator[str]:
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        where = f"{path}.{name}"
        mark = " `*`" if name in required else ""
        yield _row(f"`{where}`{mark}", _type(child), child)
        yield from _rows(child, where)
        yield from _rows(child.get("items", {}), f"{where}[]")


def _row(field: str, type_: str, node: Schema) -> str:
    default = f"`{json.dumps(node['default'])}`" if node.get("default") not in (None, "") else ""
    return f"| {field} | {type_} | {default} | {_cell(node.get('description', ''))} |"


def _type(node: Schema) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if node.get("x-kubernetes-int-or-string"):
        return "port number or name" if "maximum" in node else "quantity"
    name = str(node["type"])
    if name == "array":
        return f"list of {_type(node['items'])}"
    if "additionalProperties" in node:
        return f"map of {_type(node['additionalProperties'])}"
    bounds = [text.format(node[key]) for key, text in _BOUNDS if key in node and node[key] != 2**31 - 1]
    return ", ".join([node.get("format", name) if name == "string" else name, *bounds])


def _rules(node: Schema, path: str) -> Iterator[str]:
    for rule in node.get("x-kubernetes-validations", ()):
        yield f"- `{path}`: {rule['message']}."
    for name, child in node.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}")
    if "items" in node:
        yield from _rules(node["items"], f"{path}[]")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def route_document_reference(schema: Schema) -> str:
    """Return the page of the route document."""
    example = RouteDocument.model_validate(EXAMPLE).canonical_json()
    lines = [
        _GENERATED.format(source="gateway/api/v1alpha1.py"),
        "# The route document",
        "",
        _INTRODUCTION,
        "",
        "```json",
        json.dumps(json.loads(example), indent=2),
        "```",
    ]
    for name, node in (("RouteDocument", schema), *schema["$defs"].items()):
        if "properties" not in node:
            continue
        lines += ["", f"## {name}", "", " ".join(node["description"].split()), "", *_TABLE_HEAD]
        required = node.get("required", ())
        for field, child in node["properties"].items():
            mark = " `*`" if field in required else ""
            lines.append(_row(f"`{field}`{mark}", _reader_type(child, schema["$defs"]), child | _plain_default(child)))
    return "\n".join(lines) + "\n"


def _plain_default(node: Schema) -> dict[str, Any]:
    """Return the default where it is a scalar or a list. The default of an object is that of its fields."""
    default = node.get("default")
    return {"default": None if isinstance(default, dict) else default}


def _reader_type(node: Schema, definitions: Mapping[str, Schema]) -> str:
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if "properties" in definitions[name] else _type(definitions[name])
    if "anyOf" in node:
        return _reader_type(next(option for option in node["anyOf"] if option.get("type") != "null"), definitions)
    if "items" in node:
        return f"list of {_reader_type(node['items'], definitions)}"
    if "patternProperties" in node:
        return f"map of {_reader_type(next(iter(node['patternProperties'].values())), definitions)}"
    return f"`{node['const']}`" if "const" in node else _type(node)


def offloading_reference() -> str:
    """Return the page of the rules that decide about offloading, of the measures that they use, and of all reasons."""
    lines = [
        _GENERATED.format(source="hooks/offloading/rules.py, measures.py, targets.py and reasons.py"),
        "# Rules, measures and reasons",
        "",
        "## Rules",
        "",
        "The rules are asked in this order; the first that decides wins.",
        "",
        "| # | rule | what it says |",
        "| --- | --- | --- |",
        *(
            f"| {number} | {rule.__name__.replace('_', ' ')} | {_one_line(inspect.getdoc(rule))} |"
            for number, rule in enumerate(offloading.RULES, start=1)
        ),
        "",
        "## Measures",
        "",
        _MEASURES,
        "",
        "| metric | target | what is measured | ratio |",
        "| --- | --- | --- | --- |",
        *(
            f"| {type_} | {target} | {targets.MEASURED[type_]} | {_one_line(inspect.getdoc(formula))} |"
            for (type_, target), formula in targets.TABLE.items()
        ),
        "",
        "Any other combination, a target of zero or less, and a field of another type are `Misdeclared`.",
        "",
        "The formulas are those of the HorizontalPodAutoscaler of Kubernetes 1.36, except for these:",
        "",
        "| the autoscaler | here | why |",
        "| --- | --- | --- |",
        *(f"| {item.autoscaler} | {item.here} | {item.why} |" for item in measures.DIFFERENCES),
        "",
        "## Reasons",
        "",
        "They are in conditions, in `status.offloading` and in the header field `x-beamlit-reason`, and never renamed.",
        "",
        "| reason | meaning |",
        "| --- | --- |",
        *(f"| `{value}` | {meaning} |" for value, meaning in _reasons()),
    ]
    return "\n".join(lines) + "\n"


def _reasons() -> Iterator[tuple[str, str]]:
    """Yield every reason with the sentence that describes it, in the order of the source."""
    for node, following in pairwise(ast.parse(inspect.getsource(reasons)).body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.value, ast.Constant)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            yield str(node.value.value), _one_line(str(following.value.value))


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
