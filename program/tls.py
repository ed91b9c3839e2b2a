"""TLS contexts for connections to servers: how certificates are verified, and which certificate a server is shown.

Every connection over TLS that a program opens has its context from here: to the API server, to remote backends, to
token endpoints, to Prometheus and to the platform. Python and the HTTP libraries change what their own contexts verify
from one version to the next (since 3.13 `ssl.create_default_context` is strict); these contexts are always the same.
"""

import contextlib
import functools
import os
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

_FLAGS: Final = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
"""Flags of each verification, beside the strict one.

A chain ends at the first certificate that is trusted, although another has issued it: an authority may be given as an
intermediate alone. Go, and with it kubectl, and curl do the same."""


class AuthoritiesUnusable(ValueError):
    """What should be certificate authorities holds no certificate. The message is a phrase that follows their name."""


class CertificateUnusable(ValueError):
    """A client certificate does not match its key, or one of them cannot be read. The message is a phrase."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Certificate, in PEM, that a program shows to a server that asks for one (RFC 8446 section 4.4.2)."""

    chain: str = field(repr=False)
    """Certificate of the program, followed by those that lead to an authority which the server knows."""
    key: str = field(repr=False)
    """Private key of the certificate, not encrypted."""

    def check(self) -> None:
        """Raise when certificate and key do not belong together.

        Raises:
            CertificateUnusable: no server can be shown this certificate.
        """
        self.load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def load(self, context: ssl.SSLContext) -> None:
        """Show the certificate on connections of `context`.

        Raises:
            CertificateUnusable: the certificate does not match the key, or one of them is not PEM.
        """
        # Python's ssl module reads files only. This file is in memory and has no name.
        descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(f"{self.chain.strip()}\n{self.key.strip()}\n".encode())
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
        except OSError as exc:
            raise CertificateUnusable("are no certificate with its key in PEM") from exc
        finally:
            os.close(descriptor)


def client_context(
    *,
    strict: bool,
    authorities: str | bytes | Path | None = None,
    system: bool = False,
    certificate: ClientCertificate | None = None,
    verify: bool = True,
    verify_name: bool = True,
) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or later and HTTP/1.1 that verifies the chain and the name of a server.

    SSL_CERT_FILE, SSL_CERT_DIR and the bundles that Python packages bring are not used. Calls that want the system's
    authorities alone get the same context until those change: do not change it.

    Args:
        strict: whether certificates must follow RFC 5280 to the letter. Those of many private authorities do not: they
            have no key usage, or no authority key identifier. kubectl, curl and Go accept them, and so does a context
            that is not strict. The setting `tls.strict` decides.
        authorities: trusted certificates as text in PEM or bytes in DER, or the file that holds them in PEM; those of
            the system when None.
        system: whether those of the system are trusted beside `authorities`.
        certificate: shown to a server that asks for one.
        verify: false accepts every certificate.
        verify_name: false accepts a certificate for another name.

    Raises:
        AuthoritiesUnusable: `authorities` holds no certificate, or its file cannot be read.
        CertificateUnusable: `certificate` does not match its key.
    """
    if authorities is None and certificate is None:
        return _system_context(strict, verify, verify_name, _system_places())
    context = _context(strict, verify, verify_name)
    if certificate is not None:
        certificate.load(context)
    if authorities is None or system:
        _trust_system(context, _system_places())
    if authorities is not None:
        _trust(context, authorities)
    return context


def holds_certificates(pem: str) -> bool:
    """Return whether a text can be used as the `authorities` of a context."""
    try:
        _trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), pem)
    except AuthoritiesUnusable:
        return False
    return True


def _trust(context: ssl.SSLContext, authorities: str | bytes | Path) -> None:
    try:
        if isinstance(authorities, Path):
            context.load_verify_locations(cafile=authorities)
        else:
            context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, TypeError, ValueError) as exc:  # TypeError: not ASCII
        raise AuthoritiesUnusable("holds no certificates in PEM") from exc
    except OSError as exc:
        raise AuthoritiesUnusable(f"cannot be read: {exc.strerror}") from exc


def _context(strict: bool, verify: bool, verify_name: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags = _FLAGS | ssl.VERIFY_X509_STRICT if strict else _FLAGS
    context.set_alpn_protocols(["http/1.1"])
    context.check_hostname = verify and verify_name
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    return context


class _Place(NamedTuple):
    """File or directory with certificates, as it was when it was looked at."""

    path: str
    is_directory: bool
    changed: int
    """Nanoseconds since the epoch at which its content, or what it links to, last changed."""


def _system_places() -> tuple[_Place, ...]:
    """Return the places of certificates that OpenSSL was built with, whatever the environment says."""
    paths = ssl.get_default_verify_paths()
    places = []
    for path in (paths.openssl_cafile, paths.openssl_capath):
        with contextlib.suppress(OSError):
            state = Path(path).stat()
            places.append(_Place(path, stat.S_ISDIR(state.st_mode), state.st_mtime_ns))
    return tuple(places)


def _trust_system(context: ssl.SSLContext, places: tuple[_Place, ...]) -> None:
    for place in places:
        if place.is_directory:
            context.load_verify_locations(capath=place.path)
        else:
            context.load_verify_locations(cafile=place.path)


# To read the system's authorities takes 25 ms and a megabyte, and every remote backend, token endpoint and platform
# wants them. One context serves any number of connections at the same time.
@functools.lru_cache(maxsize=8)
def _system_context(strict: bool, verify: bool, verify_name: bool, places: tuple[_Place, ...]) -> ssl.SSLContext:
    context = _context(strict, verify, verify_name)
    _trust_system(context, places)
    return context
