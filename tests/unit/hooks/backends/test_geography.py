"""Countries and continents."""

import pytest
from iso3166 import countries

from hooks.backends import geography


def test_every_country_is_on_a_continent() -> None:
    """The table has each country that the library knows, and a library that knows one more is noticed."""
    assert [one.alpha2 for one in countries if geography.continent_of(one.alpha2) is None] == []


def test_no_country_is_made_up_or_on_two_continents() -> None:
    """Every code of the table is a country, and is there once."""
    codes = [code for line in geography._COUNTRIES.values() for code in line.split()]
    assert sorted(codes) == sorted(set(codes))
    assert [code for code in codes if geography.country(code) != code] == []
    assert geography._COUNTRIES.keys() == geography.CONTINENTS.keys()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("fr", "FR"),
        ("FR", "FR"),
        ("fra", "FR"),
        ("FrA", "FR"),
        ("na", "NA"),
        ("uk", None),
        ("eu", None),
        ("xx", None),
        ("", None),
        ("250", None),
        ("france", None),
        ("ﬁ", None),
        ("fr ", None),
    ],
)
def test_countries(code: str, expected: str | None) -> None:
    """Two letters or three, in either case; no names, no numbers, nothing that looks alike."""
    assert geography.country(code) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("EU", "EU"),
        ("eu", "EU"),
        ("Europe", "EU"),
        ("north america", "NA"),
        ("North-America", "NA"),
        ("south_america", "SA"),
        ("america", None),
        ("fr", None),
        ("", None),
    ],
)
def test_continents(name: str, expected: str | None) -> None:
    """Code or English name, in either case."""
    assert geography.continent(name) == expected


@pytest.mark.parametrize(
    ("country", "continent", "words"),
    [
        ("", "", ("", "")),
        ("fr", "", ("", "")),
        ("", "Europe", ("", "")),
        ("uk", "", ("ISO 3166-1", "")),
        ("", "fr", ("", "EU (Europe)")),
        ("fr", "eu", ("", "left out")),
    ],
)
def test_what_is_wrong_with_a_declared_place(country: str, continent: str, words: tuple[str, str]) -> None:
    """A place that does not exist, or one that is said twice; nothing is wrong with one that is not declared."""
    said = geography.country_problem(country), geography.continent_problem(continent, country)
    assert [bool(one) for one in said] == [bool(word) for word in words]
    assert all(word in one for word, one in zip(words, said, strict=True))


@pytest.mark.parametrize(
    ("country", "continent"),
    [
        ("FR", "EU"),
        ("GB", "EU"),
        ("CY", "EU"),
        ("RU", "EU"),
        ("TR", "AS"),
        ("KZ", "AS"),
        ("EG", "AF"),
        ("NA", "AF"),
        ("GL", "NA"),
        ("MX", "NA"),
        ("BR", "SA"),
        ("AU", "OC"),
        ("AQ", "AN"),
        ("XX", None),
    ],
)
def test_a_country_is_on_the_continent_that_the_documentation_says(country: str, continent: str | None) -> None:
    """Also where one could differ about it."""
    assert geography.continent_of(country) == continent
