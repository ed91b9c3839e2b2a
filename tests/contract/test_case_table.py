"""Every case of the data path is shown by a test, or declined with a reason."""

import pytest

from tools.case_table import ids, shown_by
from tools.proxy_cases import GROUPS, Case

CASES = [case for group in GROUPS.values() for case in group]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_is_shown_or_declined(case: Case) -> None:
    """A case has a test with its id in the name, or the list says why there is none."""
    assert case.declined or shown_by().get(case.id), f"no test has {case.id.lower().replace('-', '_')} in its name"


def test_ids_are_unique() -> None:
    """Each case has an id of its own."""
    assert len({case.id for case in CASES}) == len(CASES)


def test_tests_name_cases_that_exist() -> None:
    """Every id in the name of a test is that of a case in the list."""
    assert shown_by().keys() <= {case.id for case in CASES}


def test_ids_are_read_from_names() -> None:
    """All ids in a name are read, and other numbers in it are not."""
    assert ids("test_se_13_rt_09_a_401_makes_one") == ["SE-13", "RT-09"]
    assert ids("fr_03 length b'+3'") == ["FR-03"]
    assert ids("test_p5_http_1_0_sse_100") == []
