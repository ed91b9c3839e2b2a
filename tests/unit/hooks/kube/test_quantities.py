"""Quantities: exact amounts, and the text that the API server stores."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.kube.quantities import NANO, Format, InvalidQuantity, Quantity, canonical, decimal, parse


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        # As apimachinery v0.36 prints them, for each way a text can be canonical already or not.
        ("1000m", "1"),
        (1, "1"),
        (0.5, "500m"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1024Mi", "1Gi"),
        ("1000Mi", "1000Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.1Mi", "104857600m"),
        ("0.5Ki", "512"),
        ("512Ki", "512Ki"),
        ("1025Ki", "1025Ki"),
        ("2048", "2048"),
        ("1000000", "1M"),
        ("100k", "100k"),
        ("1500k", "1500k"),
        ("1e3", "1e3"),
        ("1500e0", "1500e0"),
        ("1000e0", "1e3"),
        ("1e4", "10e3"),
        ("1.0001e0", "1000100e-6"),
        ("1234567890123456789e0", "1234567890123456789"),
        ("5n", "5n"),
        ("0.5n", "1n"),
        ("-0.5n", "-1n"),
        ("-1500m", "-1500m"),
        ("-1000m", "-1"),
        ("0", "0"),
        ("0Mi", "0"),
        ("-0", "0"),
        ("+5", "+5"),
        ("2.820E3", "2.820E3"),
        (" 7 ", "7"),
        ("99999999999Gi", "9223372036854775807"),
    ],
)
def test_stored_text(written: str | float, stored: str) -> None:
    """A quantity is stored as resource.Quantity prints it."""
    assert canonical(written) == stored


def test_more_than_an_exa_has_no_suffix() -> None:
    """An amount above a thousand exa is printed whole here, while the API server stores only its digits."""
    assert canonical("2000E") == "2"
    assert str(parse("2000E")) == "2000E"


@pytest.mark.parametrize(
    "text",
    ["", "m", ".", "1e", "1K", "1ki", "1 Gi", "0x10", "1mi2", "1Gi3", "--1", "1e31", "1e-31", "nan", "9" * 65, True],
)
def test_not_a_quantity(text: str | bool) -> None:
    """A text that is no quantity is refused, and so is a power of ten that no resource can have."""
    with pytest.raises(InvalidQuantity):
        parse(text)


amounts = st.builds(
    lambda whole, fraction, suffix: f"{whole}{fraction}{suffix}",
    st.integers(-(10**9), 10**9),
    st.sampled_from(["", ".5", ".25", ".001", ".1"]),
    st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-3"]),
)


@given(amounts)
def test_the_stored_text_is_the_same_amount_and_stays(text: str) -> None:
    """The canonical text of a quantity has the same amount, and is its own canonical text."""
    stored = canonical(text)
    assert parse(stored).nanos == parse(text).nanos
    assert canonical(stored) == stored


@given(st.integers(1 - 2**63, 2**63 - 1), st.sampled_from(Format))
def test_printing_and_parsing_keep_the_amount(whole: int, form: Format) -> None:
    """A printed quantity is read back as the same exact amount."""
    assert parse(str(Quantity(whole * NANO, form))).nanos == whole * NANO


@pytest.mark.parametrize(
    ("written", "nanos"),
    [
        ("0", 0),
        ("-0", 0),
        ("1", 10**9),
        ("+1.5", 15 * 10**8),
        ("1e+06", 10**15),
        ("1E6", 10**15),
        ("2.5e-07", 250),
        ("0.0000000001", 1),
        ("-1e-10", -1),
        ("1e-999", 1),
        ("1234567890.000001", 1234567890000001000),
        ("1.7976931348623157e+308", 17976931348623157 * 10**301),
        ("9" * 309, int("9" * 309) * 10**9),
    ],
)
def test_a_number_as_programs_print_it(written: str, nanos: int) -> None:
    """A number of any size is read exactly to the billionth, and beyond that is rounded away from zero."""
    assert decimal(written).nanos == nanos


@pytest.mark.parametrize(
    "written", ["", "NaN", "+Inf", "-Inf", "1k", "1e", "1.", ".5", " 1", "0x1", "1_0", "1" * 401, "١"]
)
def test_what_is_no_decimal_number(written: str) -> None:
    """A text that is no finite decimal number is refused, such as a quantity with a suffix."""
    with pytest.raises(InvalidQuantity):
        decimal(written)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_exactly(value: float) -> None:
    """The shortest text of a float, which is what programs print, is read with an error below a billionth."""
    exact = Fraction(repr(value)) if "e" not in repr(value) else Fraction(Decimal(repr(value)))
    result = Fraction(decimal(repr(value)).nanos, 10**9)
    assert 0 <= abs(result) - abs(exact) < Fraction(1, 10**9)
