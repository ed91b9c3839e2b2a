"""Every case of the data path is shown by a test, or declined with a reason."""

import pytest

from tools.case_table import ids, shown_by
from tools.proxy_cases import GROUPS, Case

CASES = [case for group in GROUPS.values() for case in group]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_case_is_shown_or_declined(case: Case) -> None:
    """A test has the id in its name, or the list says why there is none."""
    assert case.declined or shown_by().get(case.id), f"no test has {case.id.lower().replace('-', '_')} in its name"


def test_ids_are_unique() -> None:
    """An id means one case."""
    assert len({case.id for case in CASES}) == len(CASES)


def test_tests_name_cases_that_there_are() -> None:
    """An id in a test's name that the list does not have is a slip, or a case to be added."""
    assert shown_by().keys() <= {case.id for case in CASES}


def test_ids_are_read_from_names() -> None:
    """Several ids in one name count; numbers of other things do not."""
    assert ids("test_se_13_rt_09_a_401_makes_one") == ["SE-13", "RT-09"]
    assert ids("fr_03 length b'+3'") == ["FR-03"]
    assert ids("test_p5_http_1_0_sse_100") == []
