"""The gateway with the name server of the campaign; on request, as the control, without what keeps tenants apart.

    python -m faults.fairness.gateway --name-server 127.0.0.1:20053 [--shared] -- --config config.yaml --routes routes …

With `--shared` all tenants have the same look-ups of names, and nobody has a share of connections and memory.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from unittest.mock import patch

from gateway import __main__ as program
from gateway.routes.store import RouteStore
from gateway.upstream.name_server import NameServer
from gateway.upstream.resolver import Endpoint, Resolver
from program.addresses import Destination


class SharedResolver(Resolver):
    """A resolver in which all routes share sixteen look-ups, and every request waits for its own."""

    async def resolve(self, host: str, port: int, *, destination: Destination, owner: str) -> Sequence[Endpoint]:
        """Return the addresses of a host, as for one route."""
        del owner
        return await super().resolve(host, port, destination=destination, owner="all")


class SharedStore(RouteStore):
    """A store whose proxy knows no shares."""

    def subscribe(self, subscriber: Callable[[], None]) -> None:
        """Call `subscriber` after each swap, and take the shares away again."""
        proxy = subscriber.__self__  # type: ignore[attr-defined]

        def refresh() -> None:
            subscriber()
            proxy._memory.shared = proxy._memory.divided = False
            proxy._share = proxy._tenant_share = 1 << 30

        super().subscribe(refresh)


def main() -> int:
    """Run the gateway until a signal; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m faults.fairness.gateway", description=__doc__)
    parser.add_argument("--name-server", required=True, metavar="ADDRESS:PORT", help="that is asked for all names")
    parser.add_argument("--shared", action="store_true", help="the control: tenants have no shares of their own")
    parser.add_argument("words", nargs="*", help="the gateway's own, behind --")
    options = parser.parse_args()
    open_server = partial(NameServer, servers=(options.name_server,))
    resolver: Callable[..., Resolver] = partial(Resolver, open_server=open_server)
    store: type[RouteStore] = RouteStore
    if options.shared:
        resolver = partial(SharedResolver, open_server=open_server, per_route=16, per_tenant=16, patience_seconds=60)
        store = SharedStore
    with patch.multiple(program, Resolver=resolver, RouteStore=store):
        return program.main(options.words)


if __name__ == "__main__":
    sys.exit(main())
