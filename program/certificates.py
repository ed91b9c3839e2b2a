"""Certificates of the ports on which the programs listen.

Their files may change at any time: a kubelet replaces those of a mounted Secret.
"""

import ssl

import structlog

from program.settings import Tls
from program.sockets import ListenError

log = structlog.get_logger(__name__)


def server_context(tls: Tls, setting: str) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or later and HTTP/1.1 whose handshakes show the certificate that is in the files.

    Args:
        tls: files of the certificate and its key.
        setting: key of the setting that names the files, for the message.

    Raises:
        ListenError: the files hold no certificate with its key.
    """
    try:
        files = _Files(tls)
        context = _read(tls)
    except OSError as exc:
        raise ListenError(f"{setting} {tls.cert_file} and {tls.key_file} cannot be used: {_problem(exc)}.") from exc
    context.sni_callback = files.choose  # called whether or not the client names a host
    return context


class _Files:
    """The certificate that the files held when they were last of use."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._stamp = _stamp(tls)
        self._context = _read(tls)

    def choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Give a handshake the certificate in the files; the last one while they hold none."""
        stamp = _stamp(self._tls)
        if stamp != self._stamp:
            self._stamp = stamp  # files that do not match are logged once, and read again when they change
            try:
                self._context = _read(self._tls)
            except OSError as exc:
                log.warning("certificate_unusable", file=str(self._tls.cert_file), error=_problem(exc))
            else:
                log.info("certificate_replaced", file=str(self._tls.cert_file))
        connection.context = self._context


def _stamp(tls: Tls) -> tuple[tuple[int, int, int], ...]:
    """Return times, sizes and inodes, which differ between two versions of the files; nothing when one is missing."""
    try:
        statuses = [path.stat() for path in (tls.cert_file, tls.key_file)]
    except OSError:
        return ()
    return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in statuses)


def _read(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(tls.cert_file, tls.key_file, password="")  # an encrypted key is an error, not a question
    return context


def _problem(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError) or not exc.strerror:
        return "they are no certificate with its key in PEM"
    return exc.strerror.lower()
