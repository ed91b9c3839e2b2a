"""Countries and continents: the meaning of their codes, and the continent of a country.

Codes of countries are those of ISO 3166-1. No standard says which continent a country is on: the table below has one
for each, the one GeoNames gives. Cyprus and Russia are in Europe; Turkey, the Caucasus and Kazakhstan in Asia; Egypt in
Africa; Greenland, Central America and the Caribbean in North America.
"""

from collections.abc import Mapping
from typing import Final

from iso3166 import countries

CONTINENTS: Final[Mapping[str, str]] = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
"""English name of each continent, by code."""

_COUNTRIES: Final[Mapping[str, str]] = {
    "AF": "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA MG ML MR MU MW MZ NA"
    " NE NG RE RW SC SD SH SL SN SO SS ST SZ TD TG TN TZ UG YT ZA ZM ZW",
    "AN": "AQ BV GS HM TF",
    "AS": "AE AF AM AZ BD BH BN BT CC CN GE HK ID IL IN IO IQ IR JO JP KG KH KP KR KW KZ LA LB LK MM MN MO MV MY NP OM"
    " PH PK PS QA SA SG SY TH TJ TM TR TW UZ VN YE",
    "EU": "AD AL AT AX BA BE BG BY CH CY CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV MC MD ME"
    " MK MT NL NO PL PT RO RS RU SE SI SJ SK SM UA VA XK",
    "NA": "AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN KY LC MF MQ MS MX NI PA PM PR SV SX TC"
    " TT US VC VG VI",
    "OC": "AS AU CK CX FJ FM GU KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TL TO TV UM VU WF WS",
    "SA": "AR BO BR CL CO EC FK GF GY PE PY SR UY VE",
}
_CONTINENT_OF: Final = {code: continent for continent, codes in _COUNTRIES.items() for code in codes.split()}
_BY_NAME: Final = {name.casefold(): code for code, name in CONTINENTS.items()}


def country(code: str) -> str | None:
    """Return the two-letter code, in upper case, of a country given by a code of two or three letters; None if no
    country has it."""
    if len(code) not in (2, 3) or not (code.isascii() and code.isalpha()):
        return None
    found = countries.get(code, None)
    return None if found is None else found.alpha2


def continent(name: str) -> str | None:
    """Return the code of a continent given by code or English name, its words separated by spaces, dashes or
    underscores; None if there is no such continent."""
    code = name.upper()
    return code if code in CONTINENTS else _BY_NAME.get(name.casefold().replace("-", " ").replace("_", " "))


def continent_of(code: str) -> str | None:
    """Return the continent of a country given by its two-letter code in upper case, or None where it is not known."""
    return _CONTINENT_OF.get(code)


def country_problem(code: str) -> str:
    """Return the end of a sentence that says what is wrong with a declared country; empty where nothing is wrong or no
    country is declared."""
    return "" if not code or country(code) else "must be a code of ISO 3166-1, such as fr or FRA"


def continent_problem(name: str, code: str) -> str:
    """Return the end of a sentence that says what is wrong with a continent declared beside that country; empty where
    nothing is wrong or no continent is declared."""
    if not name:
        return ""
    if code:
        return "must be left out where there is a country, which tells it"
    known = ", ".join(f"{one} ({english})" for one, english in CONTINENTS.items())
    return "" if continent(name) else f"must be one of {known}"
