"""Countries and continents, as policies compare them."""

import pytest
from iso3166 import countries

from hooks.backends import geography


def test_every_country_is_on_a_continent() -> None:
    """The table has a continent for each country that the library knows."""
    assert [one.alpha2 for one in countries if geography.continent_of(one.alpha2) is None] == []


def test_no_country_is_made_up_or_on_two_continents() -> None:
    """Every code of the table is that of a country, and is in it once."""
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
    """A country is a code of two or three letters in either case, not a name, a number or letters that look alike."""
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
    """A continent is a code or an English name, in either case."""
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
    """A place that does not exist and a continent beside a country are problems; a place that is not declared is
    none."""
    problems = geography.country_problem(country), geography.continent_problem(continent, country)
    assert [bool(one) for one in problems] == [bool(word) for word in words]
    assert all(word in one for word, one in zip(words, problems, strict=True))


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
    """Countries on two continents are on the one that the documentation says."""
    assert geography.continent_of(country) == continent
