"""Keys, certificates and tokens of a control plane, made anew in its folder. Elliptic curves: RSA keys take seconds."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ADMIN: Final = "admin-token"
CONTROLLER_MANAGER: Final = "controller-manager-token"
SCHEDULER: Final = "scheduler-token"
KWOK: Final = "kwok-token"
METRICS_SERVER: Final = "metrics-server-token"
_USERS: Final = (
    (ADMIN, "admin", "system:masters"),
    (CONTROLLER_MANAGER, "system:kube-controller-manager", "system:kube-controller-manager"),
    (SCHEDULER, "system:kube-scheduler", "system:kube-scheduler"),
    (KWOK, "kwok", "system:masters"),
    (METRICS_SERVER, "metrics-server", "system:masters"),
)
FRONT_PROXY: Final = "front-proxy"
"""Name under which the API server passes a request on to an aggregated one."""


def write(folder: Path, addresses: Sequence[str], users: Sequence[tuple[str, str, str]] = ()) -> None:
    """Make `apiserver.crt/.key` (server certificate for these addresses), `front-proxy.crt/.key` (of an authority of
    its own, as no other one vouches for it), `sa.key/.pub` (of service account tokens) and `tokens.csv`, with these
    users (token, name, group) beside those of the control plane."""
    names = ",".join((*(f"IP:{address}" for address in addresses), "DNS:localhost", "DNS:kubernetes.default.svc"))
    _certificate(folder / "apiserver", "kube-apiserver", names)
    _certificate(folder / "front-proxy", FRONT_PROXY, f"DNS:{FRONT_PROXY}")
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{folder}/sa.key")
    _openssl("ec", "-in", f"{folder}/sa.key", "-pubout", "-out", f"{folder}/sa.pub")
    lines = (f'{token},{user},{user},"{group}"\n' for token, user, group in (*_USERS, *users))
    (folder / "tokens.csv").write_text("".join(lines))


def _certificate(path: Path, name: str, names: str) -> None:
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"),
        *("-subj", f"/CN={name}", "-addext", f"subjectAltName={names}"),
        *("-keyout", f"{path}.key", "-out", f"{path}.crt"),
    )


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
