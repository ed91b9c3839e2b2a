"""Certificate authorities for tests, and certificates that are valid, or invalid in one way."""

import functools
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate chain and its private key, as PEM."""

    chain: str
    key: str

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write chain and key to files and return their paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        certificate.write_text(self.chain)
        key.write_text(self.key)
        return certificate, key


class Authority:
    """A certificate authority: a root, or an intermediate that another authority has issued."""

    def __init__(self, name: str, parent: "Authority | None" = None, *, bare: bool = False) -> None:
        """Make a key and a certificate.

        Args:
            name: common name of the subject.
            parent: issuer of the certificate; the authority itself when None.
            bare: whether to leave out the key usage of the authority, and the key identifiers of its certificate and of
                those that it issues. Many private authorities are like that.
        """
        self._bare = bare
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        issuer = parent or self
        builder = _builder(self._name, issuer._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        if not bare:
            identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
            builder = builder.add_extension(_CERTIFICATES, critical=True).add_extension(identifier, critical=False)
        self._certificate = issuer._identified(builder).sign(issuer._key, hashes.SHA256())

    @property
    def pem(self) -> str:
        """Return the certificate of the authority as PEM."""
        return _pem(self._certificate)

    def issue(
        self,
        *names: str,
        common_name: str = "server",
        days: tuple[int, int] = (-1, 2),
        chain: tuple["Authority", ...] = (),
    ) -> Pair:
        """Issue a certificate for names or addresses.

        Args:
            names: DNS names and IP addresses.
            common_name: common name of the subject.
            days: first and last day on which it is valid, counted from now.
            chain: authorities whose certificates follow it.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(common_name), self._name, key, days).add_extension(
            x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False
        )
        certificate = self._identified(builder).sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Pair(_pem(certificate) + "".join(one.pem for one in chain), private.decode())

    def _identified(self, builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        """Return a builder of a certificate that names the key that signs it."""
        if self._bare:
            return builder
        key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(key, critical=False)


_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
"""Key usage extension of an authority's certificate."""


def self_signed(*names: str) -> Pair:
    """Return a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("self-signed")
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.SubjectAlternativeName([_alternative(one) for one in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pair(_pem(certificate), private.decode())


def strict_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `ssl.create_default_context` strict, as it is since Python 3.13.

    A client that takes its context from Python or from an HTTP library then refuses a bare authority on every Python.
    """
    made = ssl.create_default_context

    @functools.wraps(made)
    def strict(*words: Any, **named: Any) -> ssl.SSLContext:
        context = made(*words, **named)
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)


def trusted_by_system(monkeypatch: pytest.MonkeyPatch, authorities: Path) -> None:
    """Put the certificates of a file in the place of those that the system trusts."""
    places = ssl.get_default_verify_paths()._replace(openssl_cafile=str(authorities), openssl_capath="/none")
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: places)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: tuple[int, int] = (-1, 2)
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
