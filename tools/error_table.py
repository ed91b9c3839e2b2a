"""Generator of the page of error codes, from the classes in gateway/errors.py and what a client can do about each."""

from collections.abc import Iterator, Mapping
from typing import Final

from gateway.errors import GatewayError

_INTRODUCTION: Final = """\
Every error that the gateway itself responds with has one of these codes: `error.code` in the form of OpenAI's errors,
`error.details.error_code` on [Anthropic's paths](../gateway.md#errors). The access log and the metrics have the same
code. An error that a backend responds with is passed on as it is.

A stream that has begun cannot change its status: it ends with an error event of the code `idle_timeout`,
`upstream_reset`, `bad_response` or `gateway_stopping`."""
ADVICE: Final[Mapping[str, str]] = {
    "internal_error": "A mistake in the gateway: its log has `request_failed` with the request's id. Report it.",
    "malformed_request": "The client, or a proxy in front, sends no valid HTTP/1.1: see [what is refused]"
    "(../gateway.md#what-is-refused).",
    "head_too_large": "Send fewer or shorter header fields, cookies above all, or raise `gateway.limits.headBytes` and"
    " `gateway.limits.fields`.",
    "target_too_long": "Move long values from the URL to the body, or raise `gateway.limits.urlBytes`.",
    "body_too_large": "Send less, or raise `spec.gateway.bodyLimitBytes` of the model or `gateway.limits.bodyBytes`.",
    "request_timeout": "Send the whole head at once, then try again: it has `gateway.timeouts.headSeconds`.",
    "body_timeout": "Send the body without long pauses (`gateway.timeouts.bodySeconds`), then try again.",
    "method_not_allowed": "Use a method of the field `Allow`; `/v1/models` and `/health` can only be read.",
    "method_not_implemented": "Use one of the usual methods; the gateway sends on no others.",
    "upgrade_refused": "Begin a WebSocket with a `GET` over HTTP/1.1 without a body, version 13.",
    "version_not_supported": "Speak HTTP/1.1. HTTP/2 ends at a load balancer in front.",
    "loop_detected": "A remote backend leads back to this gateway: change its host in the ModelDeployment.",
    "misdirected_request": "Let the URL and the field `Host` name one host.",
    "expectation_failed": "Leave the field `Expect` out, or send `100-continue`.",
    "unsupported_content_coding": "Compress the body with one of the codings of the field `Accept-Encoding`, or not.",
    "unauthorized": "Send a key that an administrator gave you, or a new token of the issuer: [access]"
    "(../gateway.md#access). The message says what is wrong with a token.",
    "malformed_content_coding": "Let the field `Content-Encoding` say how the body is compressed.",
    "route_not_found": "Check the base URL: host, or `/namespace/name`. `GET /v1/models` lists what there is.",
    "ambiguous_host": "Use one of the full host names that the message has.",
    "model_not_found": "Use a name that `GET /v1/models` lists.",
    "ambiguous_model": "Write `namespace/model`; the message has both. Do not try again.",
    "model_missing": "Name the model in one of the [places](../gateway.md#model-names) where it is looked for. The"
    " message has the cause.",
    "state_refused": "Send the whole conversation each time, with `store: false`; or an administrator changes"
    " [`spec.gateway.statefulPaths`](../gateway.md#stateful-paths).",
    "no_backend": "Try again. Lasting: no replica is ready and nothing may be offloaded, see the ModelDeployment's"
    " conditions.",
    "at_capacity": "Try again after `Retry-After`, or send less at a time. For more room: replicas, a remote backend or"
    " `spec.gateway.queue`.",
    "queue_timeout": "Try again after `Retry-After`, or send less at a time. For more time: `spec.gateway.queue`.",
    "forbidden": "Send a key of the model, too, which its namespace has: [access](../gateway.md#access-to-one-model)."
    " Or an administrator adds the model to the [rule](../gateway.md#rules-for-callers) of the caller, or the group of"
    " the caller's [token](../gateway.md#tokens) to those that are served.",
    "too_many_requests": "Try again after `Retry-After`, or send less at a time. An administrator sets the limit of a"
    " caller: [rules](../gateway.md#rules-for-callers).",
    "access_unavailable": "Try again. Lasting: the API server is away, and the gateway's log has `credential_unusable`;"
    " or the issuer of tokens is, and the log has `access_issuer_unusable`.",
    "local_only": "Try again, after `Retry-After` where there is one. The request has a value of"
    " `spec.gateway.localOnly`, so no remote backend serves it; `/decisions` has the failed attempts."
    " Lasting: run more local replicas.",
    "overloaded": "Try again after a moment. Lasting: run more replicas of the gateway.",
    "gateway_stopping": "Try again: another replica of the gateway serves the request.",
    "connect_failed": "Try again. Lasting: the model's server, or the host of its remote backend, is away.",
    "address_refused": "The remote backend has an address that it may not have: `gateway.allowedAddresses`.",
    "connect_timeout": "Try again. Lasting: the backend, or the way to it, is overloaded or blocked.",
    "tls_failed": "Mend the backend's certificate, or name its authority: [certificates]"
    "(../configuration.md#certificates-of-servers).",
    "first_byte_timeout": "Ask for a stream, or raise `spec.gateway.timeouts.firstByteSeconds`.",
    "first_token_timeout": "Try again later: the model's server may have more to do than it can. Lasting: raise"
    " `spec.gateway.timeouts.firstTokenSeconds`.",
    "idle_timeout": "Try again. Lasting: the server stalls, or needs more than `spec.gateway.timeouts.idleSeconds`"
    " between two parts.",
    "upstream_reset": "Try again. Lasting: the model's server ends during requests; see its log.",
    "bad_response": "The backend sends no valid HTTP, or a head that is too large; see the gateway's log.",
    "credentials_failed": "An administrator mends the Secret or the token endpoint: [credentials]"
    "(../gateway.md#credentials). The caller's own key is not at fault.",
    "credentials_refused": "An administrator renews the credentials of the remote backend, which refuses them. The"
    " caller's own key is not at fault.",
}
"""What to do about an error, by its code."""


def page() -> str:
    """Return the content of docs/reference/errors.md.

    Raises:
        KeyError: there is no advice for a code.
    """
    lines = [
        "<!-- Generated from gateway/errors.py and tools/error_table.py by `make generate`. -->\n",
        "# Error codes",
        "",
        _INTRODUCTION,
        "",
        "| code | status | meaning | what to do |",
        "| --- | --- | --- | --- |",
    ]
    rows: dict[str, type[GatewayError]] = {}
    for one in errors():
        rows.setdefault(one.code, one)
    for code, one in sorted(rows.items(), key=lambda row: (row[1].status, row[0])):
        lines.append(f"| `{code}` | {one.status} | {one.sentence} | {ADVICE[code]} |")
    return "\n".join(lines) + "\n"


def errors(base: type[GatewayError] = GatewayError) -> Iterator[type[GatewayError]]:
    """Yield the classes of errors that are raised, in the order of the source: of a code the general one first."""
    if base is GatewayError or not (base.__doc__ or "").startswith("Abstract base"):
        yield base
    for one in base.__subclasses__():
        yield from errors(one)
