"""TLS contexts for connections to servers, which accept the same certificates on every Python."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from program.tls import AuthoritiesUnusable, CertificateUnusable, ClientCertificate, client_context
from tests.authorities import Authority, Pair, self_signed, strict_by_default, trusted_by_system

ROOT: Final = Authority("root")
INTERMEDIATE: Final = Authority("intermediate", ROOT)
BARE: Final = Authority("bare", bare=True)
BARE_INTERMEDIATE: Final = Authority("bare intermediate", BARE, bare=True)
OTHER: Final = Authority("other")
NAME: Final = "server.test"


@asynccontextmanager
async def server(
    folder: Path, pair: Pair, *, clients: Authority | None = None, version: ssl.TLSVersion | None = None
) -> AsyncIterator[int]:
    """Serve TLS with a certificate, and send the common name of the client's certificate; yield the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair.write(folder, "server"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    if version is not None:
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    if clients is not None:
        context.load_verify_locations(cadata=clients.pem)
        context.verify_mode = ssl.CERT_REQUIRED

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peercert") or {}
        subject = dict(part[0] for part in peer.get("subject", ()))
        writer.write(subject.get("commonName", "anonymous").encode() + b"\n")
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def greeting(port: int, context: ssl.SSLContext, name: str = NAME) -> str:
    """Connect and return the line that the server sends.

    Raises:
        ssl.SSLError: The handshake failed.
    """
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        try:
            return (await reader.readline()).decode().strip()
        finally:
            writer.transport.abort()


ACCEPTED: Final[dict[str, tuple[Pair, str]]] = {
    "root": (ROOT.issue(NAME), ROOT.pem),
    "intermediate": (INTERMEDIATE.issue(NAME, chain=(INTERMEDIATE,)), ROOT.pem),
    "one-of-two": (OTHER.issue(NAME), ROOT.pem + OTHER.pem),
    "intermediate-alone-is-trusted": (INTERMEDIATE.issue(NAME), INTERMEDIATE.pem),
    "intermediate-is-trusted-and-sent": (INTERMEDIATE.issue(NAME, chain=(INTERMEDIATE,)), INTERMEDIATE.pem),
}
LAX: Final[dict[str, tuple[Pair, str]]] = {
    "bare-root": (BARE.issue(NAME), BARE.pem),
    "bare-intermediate": (BARE_INTERMEDIATE.issue(NAME, chain=(BARE_INTERMEDIATE,)), BARE.pem),
    "bare-intermediate-alone-is-trusted": (BARE_INTERMEDIATE.issue(NAME), BARE_INTERMEDIATE.pem),
}
REFUSED: Final[dict[str, tuple[Pair, str]]] = {
    "self-signed": (self_signed(NAME), ROOT.pem),
    "another-name": (ROOT.issue("other.test"), ROOT.pem),
    "name-in-the-subject-alone": (ROOT.issue("other.test", common_name=NAME), ROOT.pem),
    "another-authority": (OTHER.issue(NAME), ROOT.pem),
    "expired": (ROOT.issue(NAME, days=(-3, -1)), ROOT.pem),
    "without-its-intermediate": (INTERMEDIATE.issue(NAME), ROOT.pem),
}


@pytest.mark.parametrize("strict", [False, True], ids=["lax", "strict"])
@pytest.mark.parametrize(("pair", "authorities"), ACCEPTED.values(), ids=ACCEPTED)
async def test_a_server_that_a_trusted_authority_knows(
    tmp_path: Path, pair: Pair, authorities: str, *, strict: bool
) -> None:
    """A certificate is accepted when its chain ends at a trusted certificate, which may be an intermediate."""
    async with server(tmp_path, pair) as port:
        assert await greeting(port, client_context(strict=strict, authorities=authorities)) == "anonymous"


@pytest.mark.parametrize("strict", [False, True], ids=["lax", "strict"])
@pytest.mark.parametrize(("pair", "authorities"), REFUSED.values(), ids=REFUSED)
async def test_a_server_that_no_trusted_authority_knows(
    tmp_path: Path, pair: Pair, authorities: str, *, strict: bool
) -> None:
    """A certificate that is self-signed, expired, of another name or of another authority is refused."""
    async with server(tmp_path, pair) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeting(port, client_context(strict=strict, authorities=authorities))


@pytest.mark.parametrize(("pair", "authorities"), LAX.values(), ids=LAX)
async def test_an_authority_without_key_usage_and_key_identifiers(
    tmp_path: Path, pair: Pair, authorities: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority without key usage and key identifiers is accepted on every Python, and refused in strict mode."""
    strict_by_default(monkeypatch)
    async with server(tmp_path, pair) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeting(port, ssl.create_default_context(cadata=authorities))
        assert await greeting(port, client_context(strict=False, authorities=authorities)) == "anonymous"
        with pytest.raises(ssl.SSLCertVerificationError, match=r"[Kk]ey"):
            await greeting(port, client_context(strict=True, authorities=authorities))


@pytest.mark.parametrize("strict", [False, True], ids=["lax", "strict"])
def test_flags_do_not_depend_on_python(*, strict: bool) -> None:
    """Every verification flag of a context is set by the module and none by the version of Python."""
    expected = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context = client_context(strict=strict)
    assert context.verify_flags == (expected | ssl.VERIFY_X509_STRICT if strict else expected)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


async def test_authorities_in_a_file(tmp_path: Path) -> None:
    """Authorities may come from a file, which may have remarks that are not ASCII."""
    authorities = tmp_path / "ca.pem"
    authorities.write_text(f"# Autorité\n{ROOT.pem}", encoding="utf-8")
    async with server(tmp_path, ROOT.issue(NAME)) as port:
        assert await greeting(port, client_context(strict=False, authorities=authorities)) == "anonymous"


async def test_authorities_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without authorities of its own a context trusts those of the system and none of SSL_CERT_FILE or SSL_CERT_DIR."""
    system = tmp_path / "system.pem"
    system.write_text(ROOT.pem)
    trusted_by_system(monkeypatch, system)
    (tmp_path / "other.pem").write_text(OTHER.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    async with server(tmp_path, ROOT.issue(NAME)) as port:
        assert await greeting(port, client_context(strict=False)) == "anonymous"
    async with server(tmp_path, OTHER.issue(NAME)) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeting(port, client_context(strict=False))


def test_the_systems_authorities_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts that trust the system alone are the same one until the system's authorities change."""
    system = tmp_path / "system.pem"
    system.write_text(ROOT.pem)
    trusted_by_system(monkeypatch, system)
    first = client_context(strict=False)
    assert client_context(strict=False) is first
    different: list[dict[str, Any]] = [{"strict": True}, {"verify": False}, {"verify_name": False}, {"system": True}]
    different[-1]["authorities"] = OTHER.pem
    assert all(client_context(**({"strict": False} | one)) is not first for one in different)
    system.write_text(OTHER.pem)
    os.utime(system, ns=(0, 1))
    second = client_context(strict=False)
    assert second is not first
    assert [one["subject"] for one in second.get_ca_certs()] != [one["subject"] for one in first.get_ca_certs()]


BROKEN: Final[dict[str, tuple[Any, str]]] = {
    "empty": ("", "holds no certificates in PEM"),
    "text": ("no certificate", "holds no certificates in PEM"),
    "not-ascii": ("kein Schlüssel", "holds no certificates in PEM"),
    "absent": (Path("/none/ca.pem"), "cannot be read: No such file or directory"),
    "another-file": (Path(__file__), "holds no certificates in PEM"),
}


@pytest.mark.parametrize(("authorities", "phrase"), BROKEN.values(), ids=BROKEN)
def test_authorities_without_a_certificate(authorities: str | Path, phrase: str) -> None:
    """Authorities without a certificate, which would verify nothing, are an error."""
    with pytest.raises(AuthoritiesUnusable, match=f"^{phrase}$"):
        client_context(strict=False, authorities=authorities)


async def test_verification_that_is_switched_off(tmp_path: Path) -> None:
    """Without verification every certificate is accepted, and without verification of the name one for another name."""
    async with server(tmp_path, OTHER.issue("other.test")) as port:
        assert await greeting(port, client_context(strict=True, authorities=ROOT.pem, verify=False)) == "anonymous"
        nameless = client_context(strict=True, authorities=OTHER.pem, verify_name=False)
        assert await greeting(port, nameless) == "anonymous"
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeting(port, client_context(strict=True, authorities=ROOT.pem, verify_name=False))


async def test_a_client_certificate(tmp_path: Path) -> None:
    """A server that requires a client certificate gets the one of the context, with its intermediates."""
    pair = INTERMEDIATE.issue("x", common_name="the program", chain=(INTERMEDIATE,))
    certificate = ClientCertificate(pair.chain, pair.key)
    certificate.check()
    async with server(tmp_path, ROOT.issue(NAME), clients=ROOT) as port:
        context = client_context(strict=False, authorities=ROOT.pem, certificate=certificate)
        assert await greeting(port, context) == "the program"


def test_a_client_certificate_with_the_key_of_another() -> None:
    """A client certificate that does not match its key is an error, whose text has neither of them."""
    certificate = ClientCertificate(ROOT.issue("x").chain, ROOT.issue("x").key)
    with pytest.raises(CertificateUnusable, match=r"^are no certificate with its key in PEM$"):
        certificate.check()
    with pytest.raises(CertificateUnusable):
        client_context(strict=False, certificate=certificate)
    assert "BEGIN" not in repr(certificate)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_versions_and_protocols(tmp_path: Path) -> None:
    """A context refuses TLS before 1.2 and offers HTTP/1.1 alone."""
    context = client_context(strict=False, authorities=ROOT.pem)
    async with server(tmp_path, ROOT.issue(NAME), version=ssl.TLSVersion.TLSv1_1) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greeting(port, context)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    async with server(tmp_path, ROOT.issue(NAME)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.transport.abort()
