"""When certificates end: read from their encoding, and shown as a metric."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from program.certificate_ends import MOST, SEEN_SECONDS, CertificateEnds
from program.validity import end_of, ends_of
from tests.authorities import Authority

ROOT = Authority("root")
KEY = ec.generate_private_key(ec.SECP256R1())


def ending(moment: datetime, *, name: str = "x", serial: int = 1) -> x509.Certificate:
    """Return a certificate that ends at a time."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder(subject, subject, KEY.public_key(), serial)
        .not_valid_before(datetime(1951, 1, 1, tzinfo=UTC))
        .not_valid_after(moment)
        .sign(KEY, hashes.SHA256())
    )


def der(certificate: x509.Certificate) -> bytes:
    """Return a certificate in DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def pem(certificate: x509.Certificate) -> str:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


WHOLE = der(ending(datetime(2040, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1952, 2, 29, 1, 2, 3, tzinfo=UTC),
        datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2000, 2, 29, tzinfo=UTC),
        datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2050, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_the_end_of_a_certificate(moment: datetime) -> None:
    """Both forms of a time are read, with the right century."""
    assert end_of(der(ending(moment))) == moment.timestamp()


@pytest.mark.parametrize(("name", "serial"), [("x" * 64, 1), ("x", 2**150)])
def test_fields_of_any_length(name: str, serial: int) -> None:
    """Names and serial numbers of any length stand in front of the time."""
    moment = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert end_of(der(ending(moment, name=name, serial=serial))) == moment.timestamp()


@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate(data: bytes) -> None:
    """Any other bytes have no end, and raise nothing."""
    assert end_of(data) is None


@given(st.data())
def test_a_certificate_that_was_cut_or_changed(data: st.DataObject) -> None:
    """A certificate that is cut short or has another byte somewhere raises nothing."""
    whole = bytearray(WHOLE)
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    end_of(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


def test_a_chain_and_what_is_no_certificate_in_it() -> None:
    """The ends of all certificates of a text are returned, whatever stands between them; what is none is left out."""
    first, second = datetime(2030, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    broken = "-----BEGIN CERTIFICATE-----\nAAAA=A\n-----END CERTIFICATE-----\n"
    text = f"subject: x\n{pem(ending(first))}{broken}# next\n{pem(ending(second))}"
    assert ends_of(text) == [first.timestamp(), second.timestamp()]
    assert ends_of("no certificate") == []


def shown(ends: CertificateEnds) -> dict[tuple[str, str], float]:
    """Return what the metric tells, by the labels."""
    samples = [one for part in ends.collect() for one in part.samples]
    return {(one.labels["certificate"], one.labels["name"]): one.value for one in samples}


class Clock:
    """Clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now


def test_certificates_that_are_used() -> None:
    """Of a chain the first end counts; a certificate that has changed counts as it is now, and one that was not used
    for a day is no longer in the metric."""
    early, late = datetime(2030, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    clock = Clock()
    ends = CertificateEnds("gateway", clock)
    assert shown(ends) == {}
    ends.see("client", "default/c", pem(ending(late)) + pem(ending(early)))
    ends.see("server", "api.example:443", der(ending(early)))
    ends.see("server", "odd.example:443", b"odd")
    assert shown(ends) == dict.fromkeys([("client", "default/c"), ("server", "api.example:443")], early.timestamp())
    clock.now = SEEN_SECONDS / 2
    ends.see("server", "api.example:443", der(ending(late)))
    clock.now = SEEN_SECONDS + 1
    assert shown(ends) == {("server", "api.example:443"): late.timestamp()}


def test_the_number_of_certificates_is_bounded() -> None:
    """The certificates that were not used for longest are forgotten when there are too many."""
    ends = CertificateEnds("gateway")
    content = der(ending(datetime(2030, 1, 1, tzinfo=UTC)))
    for number in range(MOST + 5):
        ends.see("server", f"{number}.example:443", content)
    assert len(shown(ends)) == MOST
    assert ("server", "4.example:443") not in shown(ends)
    assert ("server", f"{MOST + 4}.example:443") in shown(ends)


def test_the_listener_and_authorities(tmp_path: Path) -> None:
    """The listener's file is read as it is now; of authorities in one bundle the last end counts."""
    early, late = datetime(2030, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    ends = CertificateEnds("hooks")
    ends.listener = tmp_path / "tls.crt"
    ends.authorities = lambda: [("default/demo/remote", pem(ending(early)) + pem(ending(late))), ("a/b/c", "none")]
    authority = {("authority", "default/demo/remote"): late.timestamp()}
    assert shown(ends) == authority
    for days in (3, 9):
        pair = ROOT.issue("hooks", days=(-1, days))
        (tmp_path / "tls.crt").write_text(pair.chain)
        found = shown(ends)
        left = timedelta(seconds=found.pop(("listener", "tls.crt")) - datetime.now(UTC).timestamp())
        assert timedelta(days=days - 1) < left <= timedelta(days=days, minutes=1)
        assert found == authority
