"""TLS contexts for connections to backends."""

import ssl
from pathlib import Path

from gateway import errors
from program.certificates import ClientCertificate


def client_context(ca_bundle: str | None, certificate: ClientCertificate | None = None) -> ssl.SSLContext:
    """A TLS context that verifies chain and name, with the given PEM certificates or the system's roots.

    It shows `certificate` to a server that asks for one.

    Environment variables (SSL_CERT_FILE, SSL_CERT_DIR) do not count.

    Raises:
        errors.TlsFailed: `ca_bundle` holds no usable certificate.
        errors.CredentialsFailed: `certificate` is none, or not with this key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        try:
            certificate.load(context)
        except ValueError as exc:
            raise errors.CredentialsFailed from exc
    if ca_bundle is not None:
        try:
            context.load_verify_locations(cadata=ca_bundle)
        except (ssl.SSLError, ValueError, TypeError) as exc:  # TypeError: not ASCII
            raise errors.TlsFailed from exc
        return context
    paths = ssl.get_default_verify_paths()
    if Path(paths.openssl_cafile).is_file():
        context.load_verify_locations(cafile=paths.openssl_cafile)
    if Path(paths.openssl_capath).is_dir():
        context.load_verify_locations(capath=paths.openssl_capath)
    return context
