"""Cases of HTTP between clients, gateway and backends: an id, what is expected, or why it is not done.

A test shows a case when its name, or that of one of its parameters, has the id in it: `fr_01` for FR-01. The page
docs/reference/proxy-cases.md and its test are made from this list. Ids are never used again for something else.
"""

from typing import Final, NamedTuple


class Case(NamedTuple):
    """Case of HTTP that the gateway must get right."""

    id: str
    expected: str
    """Sentence that says what happens and what the gateway does."""
    declined: str = ""
    """Reason why the gateway does something else, or empty. A case with a reason needs no test."""


GROUPS: Final[dict[str, tuple[Case, ...]]] = {
    "Framing of requests": (
        Case(
            "FR-01",
            "Content-Length beside `Transfer-Encoding: chunked`, in either order: 400, and the connection is closed.",
        ),
        Case("FR-02", "Two lengths, equal or not, in two fields or as a list: 400."),
        Case("FR-03", "A length with a sign, a base, an underscore, other digits, too many digits or none: 400."),
        Case("FR-04", "A length with leading zeros or trailing space is read, and sent on as the plain number."),
        Case("FR-05", "A transfer coding that is not exactly `chunked`: 400 or 501."),
        Case("FR-07", "`chunked` twice, or not as the last coding: 400."),
        Case(
            "FR-09", "A framing field whose name has a space or a look-alike letter: 400. With an underscore: dropped."
        ),
        Case("FR-10", "A line of the header section that ends in a bare LF: 400."),
        Case("FR-11", "A request line without a version: 400 or 505, and its body is no request."),
        Case("FR-12", "CR, NUL or another control character in a name or value: 400."),
        Case("FR-13", "A folded field, or space before the first one: 400."),
        Case(
            "FR-14",
            "A chunk size with space, sign or base, of no or too many digits, or ended by one of CR and LF: 400.",
        ),
        Case("FR-15", "A chunk extension with a line break, or longer than a few hundred bytes: 400."),
        Case("FR-16", "Chunk data without CRLF behind it: 400."),
        Case("FR-17", "Trailers are read, never become fields, and are not sent on."),
        Case("FR-18", "Trailers without bound, in bytes or in number: 400 or 431."),
        Case(
            "FR-19",
            "An upgrade with a body that looks like a request: nothing of the body is executed. A WebSocket that is no "
            "GET without a body is refused; any other offer is ignored, and the body belongs to its request.",
        ),
        Case("FR-20", "CONNECT, with an authority or a path: refused, and nothing behind it is executed."),
        Case("FR-21", "A body of GET, HEAD or DELETE belongs to its request; the next one begins behind it."),
        Case("FR-22", "What follows a request with `Connection: close` is ignored."),
        Case(
            "FR-23",
            "Pipelined requests get their responses in order, or the first one before the connection is closed.",
        ),
        Case("FR-26", "No Host, two, an empty or an impossible one: 400. HTTP/1.0 needs none."),
        Case("FR-27", "Another protocol version, the HTTP/2 preface, a TLS hello on the plain port: 400 or 505."),
        Case("FR-28", "A method in lower case, unknown or of 8 KB: 400 or 501."),
        Case("FR-29", "One empty line before a request is ignored; thousands exceed the limit of the header section."),
    ),
    "Framing of responses": (
        Case(
            "UR-01", "Contradictory, repeated or malformed framing from a backend: 502, and its connection is dropped."
        ),
        Case("UR-04", "A response to HEAD has no body, whatever it announces, and the next response is the next one."),
        Case("UR-05", "204 and 304 have neither body nor length towards the client; a 205 of no bytes is complete."),
        Case("UR-07", "A 101 that was not asked for, or for another protocol: 502, and the connection is dropped."),
        Case("UR-08", "A body ended by the connection is complete after FIN and broken after RST."),
        Case("UR-09", "A body that breaks off is never shown as complete, and its connection is never used again."),
        Case("UR-10", "A transfer coding that was not asked for, or any in HTTP/1.0: 502."),
        Case(
            "UR-12", "A header section or trailers without bound: 502 at the limit, for little CPU even byte by byte."
        ),
        Case("UR-13", "Control characters in a value: 502. Bytes beyond ASCII pass as they are."),
        Case("UR-14", "A flood of tiny chunks becomes few writes."),
        Case("UR-15", "A response before the end of the request's body is relayed; then both connections end."),
        Case("UR-16", "`Connection: close` counts in any place and spelling."),
    ),
    "Fields": (
        Case("HH-01", "Fields of one connection, and those that Connection names, pass in neither direction."),
        Case("HH-04", "TE is dropped: trailers are not relayed."),
        Case("HH-05", "Via names this gateway; a request that already has its name is 508."),
        Case("HH-06", "TRACE is 405; OPTIONS counts Max-Forwards down; at 0 the gateway responds itself."),
        Case("HH-07", "The gateway responds to `OPTIONS *` itself; `*` with another method is 400."),
        Case("HH-08", "Forwarding fields of an unknown client are replaced; those of a trusted proxy are added to."),
        Case("HH-09", "There is one Date, and the backend's Server field stays."),
        Case("HH-10", "Repeated fields stay apart and keep their order."),
        Case("HH-11", "No field is invented that the client did not send, such as User-Agent."),
        Case(
            "HH-12", "A request that is refused by its header section gets no `100 Continue`, and no backend gets it."
        ),
        Case("HH-13", "`Expect: 100-continue` gets one 100 response, and is not sent on."),
        Case("HH-14", "Another expectation: 417."),
        Case("HH-15", "Host is the backend's name; the client's stands in X-Forwarded-Host."),
        Case("HH-16", "Fields with an underscore in their name are dropped."),
        Case("HH-17", "Fields that tell a backend who the client is are dropped unless a route sets them."),
    ),
    "Bodies and streams": (
        Case("BS-01", "Each event of a stream is with the client before the backend sends the next."),
        Case("BS-02", "A client that reads slowly holds the backend back; memory stays bounded."),
        Case("BS-03", "A backend that reads slowly holds the client back."),
        Case("BS-06", "An upload of unknown length is sent on in chunks as it comes."),
        Case("BS-07", "No body, a length of 0 and an empty chunked body stay what they are."),
        Case("BS-08", "A body above the limit is 413, seen by a client that is still sending."),
        Case("BS-09", "Compressed responses pass byte by byte."),
        Case("BS-10", "A response to HTTP/1.0 has no chunks, and its connection ends."),
        Case("BS-11", "When a backend breaks off, the client sees no end of the body."),
        Case("BS-12", "Ten thousand small events pass whole and in order, for few writes."),
        Case("BS-13", "A client that closes its sending side while it waits for a response counts as disconnected."),
    ),
    "Attempts": (
        Case("RT-01", "No connection, no name, no TLS, no token: the next backend, for any method."),
        Case("RT-02", "A kept connection that is dead before a byte was written is replaced, and does not count."),
        Case("RT-03", "A kept connection that dies before a byte of the response is replaced once by a fresh one."),
        Case("RT-05", "A connection that breaks within the header section of a response: another backend."),
        Case("RT-06", "Statuses that say “not now” go to another backend, as the route lists them."),
        Case("RT-07", "A request without a response in time goes to another backend only where the route asks for it."),
        Case("RT-08", "After the first byte, of an event stream its first event, nothing is tried again."),
        Case("RT-09", "A refused token is renewed once, within the same attempt."),
        Case("RT-10", "Beyond the route's budget the original error is the response."),
        Case(
            "RT-11",
            "Attempts share one deadline for the whole request.",
            "There is no deadline for a whole request: generations last as long as they last. Each attempt has its own "
            "deadlines, each backend is tried once, and so their sum is bounded.",
        ),
        Case("RT-12", "A body that is sent again is the same, byte by byte; one above the limit is sent once."),
        Case("RT-13", "A further attempt stays on its request's routing table, without backends taken out since."),
    ),
    "Connections to backends": (
        Case("CP-01", "A connection that ends while idle leaves the pool at once."),
        Case(
            "CP-02", "A backend that closes idle connections just as they are used again causes no error for a client."
        ),
        Case("CP-03", "A keep-alive hint shortens the life in the pool."),
        Case("CP-04", "The connection of a cancelled request is aborted."),
        Case("CP-05", "A connection with anything left over is never used again."),
        Case(
            "CP-07",
            "A request that is cancelled while it waits for a connection gives its place to the next one.",
        ),
        Case(
            "CP-08",
            "The connection used last is used first.",
            "One of the idle connections is drawn at random, and none lives longer than a minute, so that new replicas "
            "behind a Service get their share.",
        ),
        Case("CP-09", "A connection that closes in the moment in which it is handed out causes no error for a client."),
        Case("CP-10", "Connections leave the pool by age, by idleness and by number."),
    ),
    "Deadlines and clients that leave": (
        Case("TO-01", "A handshake without a response ends at the connect deadline."),
        Case("TO-02", "No response to a request: 504, and the connection is dropped."),
        Case("TO-03", "A header section of a response that arrives byte by byte has an absolute deadline."),
        Case("TO-04", "A stream that falls silent is broken off, and counted."),
        Case(
            "TO-05",
            "A deadline for the whole request that passes within a response breaks it off.",
            "There is no such deadline; see RT-11. TO-04 and BS-11 show how a response breaks off.",
        ),
        Case(
            "TO-06", "In whatever state a request is when its client disconnects, the backend is told within a second."
        ),
        Case("TO-07", "No further attempt is made for a client that has disconnected."),
        Case("TO-08", "A client that disconnects after it has pipelined a second request is noticed too."),
        Case("TO-10", "After a cancel hardly more is read from a TLS connection."),
        Case(
            "TO-11",
            "A request that is cancelled while it waits for a token does not cancel the token for other requests.",
        ),
        Case("TO-12", "A wall clock that jumps ends no request and renews no token."),
    ),
    "Targets, secrets and logs": (
        Case("SE-01", "A target with another authority than Host is refused."),
        Case("SE-03", "A path that a backend might read otherwise is refused or passes byte by byte."),
        Case("SE-04", "Hosts compare without case, port and final dot; paths by whole segments."),
        Case("SE-05", "A query passes as it is and selects nothing."),
        Case("SE-06", "A fragment in the target: 400."),
        Case("SE-07", "Whatever a client writes, its line in the log is one line of JSON, of bounded length."),
        Case("SE-08", "The caller's credentials go to backends of the cluster, never to a remote."),
        Case("SE-09", "The remote's token goes only to the hosts that its Secret names."),
        Case("SE-10", "Redirects pass through; those of a token endpoint are refused."),
        Case("SE-11", "A response of a token endpoint without a usable token is a failure."),
        Case(
            "SE-12",
            "Requests that wait for a token share one request to the token endpoint, before the old token expires.",
        ),
        Case("SE-13", "A rotated client secret is used at the next request to the token endpoint."),
        Case("SE-14", "A backend whose certificate cannot be verified gets no byte."),
        Case("SE-15", "A remote name may not lead into the machine or the cluster, by any spelling or by rebinding."),
        Case("SE-16", "Proxy and certificate variables of the environment count for nothing."),
        Case("SE-17", "Errors are fixed texts without names or addresses."),
        Case("SE-18", "Labels of metrics come from the routing table only."),
        Case("SE-19", "The endpoints for administrators cannot be reached through the port for clients."),
    ),
    "Changes, stops and scarcity": (
        Case("RD-01", "When a route goes, its streams finish; new requests are 404."),
        Case("RD-02", "When a backend goes, its streams finish; new requests go to the others."),
        Case("RD-03", "Weights that change all the time cost no request, and the split stays exact."),
        Case("RD-04", "A mounted ConfigMap that is swapped counts within a second."),
        Case("RD-06", "The chart mounts nothing by subPath, which would never be updated."),
        Case("RD-07", "After SIGTERM streams may finish, up to the limit."),
        Case("RD-08", "Any sequence of signals is one orderly end with status 0."),
        Case("RD-09", "While it stops, the gateway serves requests and asks clients to close their connections."),
        Case("RD-10", "Without free file descriptors the gateway goes on, logs little, and recovers."),
        Case("RD-11", "Without free local ports a request is 503, and kept connections go on."),
        Case("RD-12", "Names are looked up again in time; old addresses are used when that fails."),
        Case("RD-13", "An event loop that is blocked for half a second breaks no healthy stream."),
        Case(
            "RD-14",
            "When a worker dies another one serves.",
            "A gateway is one process. Its pod is restarted by the kubelet, and other replicas serve meanwhile.",
        ),
        Case("RD-15", "A log that is not read loses lines, but no request."),
    ),
    "Hostile route documents": (
        Case("K-02", "The address of a remote is checked when it is connected to, not its name when it is written."),
        Case("K-03", "Credentials are of the document's own namespace; another one gains nothing from a cached token."),
        Case("K-05", "Of two documents that claim one name the older counts, in any order; the other is reported."),
        Case("K-07", "A path prefix is segments of URL characters; anything else rejects the document."),
        Case(
            "K-08",
            "Fields are tokens and visible ASCII; a document cannot set framing and forwarding fields.",
        ),
        Case(
            "K-09",
            "A document cannot set fields that tell a backend who the client is.",
            "It can: the owner of a ModelDeployment decides what its own backend is told. Clients cannot set them.",
        ),
        Case("K-12", "Any bytes are a document or an error of that document, and nothing else happens."),
        Case("K-13", "Fields from a newer writer are ignored and counted, unless the document requires them."),
        Case("K-19", "Secrets appear in no log and no error."),
        Case("K-25", "Odd spellings of an address are checked as the address that they mean."),
        Case("K-26", "Credentials of a tenant go to the hosts that they are for."),
        Case(
            "K-27",
            "A tenant cannot turn off the verification of certificates.",
            "There is nothing to turn off: no field says so, in documents or in settings.",
        ),
        Case("K-28", "Timeouts and limits of a document have bounds; beyond them it is rejected."),
        Case("K-34", "A document that cannot be read leaves the last good one in force."),
    ),
}
"""All cases by group, in the order of the page."""
