"""Rules of a caller and of its groups, put together."""

from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.access.allowance import Allowance
from gateway.access.rules import CallerRules, Rule


def allowance(own: dict[str, Any] | None, *groups: dict[str, Any]) -> Allowance:
    """Return what a caller may do with a rule of its own and rules of its groups."""
    rules = [Rule.model_validate(one) for one in groups]
    return Allowance(
        None if own is None else ("me", Rule.model_validate(own)),
        [(f"group:{number}", rule) for number, rule in enumerate(rules)],
    )


A, B = "default/a", "default/b"


@pytest.mark.parametrize(
    ("own", "groups", "models"),
    [
        (None, [{"models": [A]}, {"models": [B]}], {A, B}),
        (None, [{"models": [A]}, {"priority": "high"}], {A}),
        (None, [{"priority": "high"}], None),
        ({"models": [B]}, [{"models": [A]}], {B}),
        ({"models": []}, [{"models": [A]}], set()),
        ({"burst": "deny"}, [{"models": [A]}], {A}),
        ({}, [], None),
    ],
)
def test_models_add_up(own: Any, groups: Any, models: set[str] | None) -> None:
    """Models of groups add up, and those in the caller's own rule count alone."""
    found = allowance(own, *groups)
    assert found.models == models
    assert found.allows(A) is (models is None or A in models)


@pytest.mark.parametrize(
    ("own", "groups", "inside"),
    [
        (None, [{"burst": "deny"}, {"burst": "allow"}], True),
        (None, [{"burst": "allow"}, {}], False),
        ({"burst": "allow"}, [{"burst": "deny"}], False),
        ({"burst": "deny"}, [{"burst": "allow"}], True),
        ({"models": [A]}, [{"burst": "deny"}], True),
        ({}, [], False),
    ],
)
def test_one_denial_is_enough(own: Any, groups: Any, inside: bool) -> None:
    """A caller stays inside where one of its groups has to, unless its own rule says otherwise."""
    assert allowance(own, *groups).stays_inside is inside


@pytest.mark.parametrize(
    ("own", "groups", "high"),
    [
        (None, [{"priority": "high"}, {"priority": "normal"}], True),
        ({"priority": "normal"}, [{"priority": "high"}], False),
        ({"priority": "high"}, [], True),
        ({}, [{}], False),
    ],
)
def test_one_high_priority_is_enough(own: Any, groups: Any, high: bool) -> None:
    """A caller has high priority where one of its groups has it, unless its own rule says otherwise."""
    assert allowance(own, *groups).high is high


def test_every_limit_counts(tmp_path: Path) -> None:
    """Requests count for the caller and for its groups, of which all callers have one limit together."""
    file = tmp_path / "callers.yaml"
    file.write_text("callers: {me: {maxInFlight: 2}}\ngroups: {team: {maxInFlight: 3}, all: {burst: deny}}\n")
    rules, team = CallerRules(file), frozenset({"team", "all", "none"})
    mine, theirs = rules.allowance("me", team), rules.allowance("other", team)
    assert mine is not None
    assert theirs is not None
    assert sorted(mine.limits) == [("group:team", 3), ("me", 2)]
    assert theirs.limits == (("group:team", 3),)
    for _ in range(2):
        rules.enter(mine.limits)
    for _ in range(2):
        with pytest.raises(errors.TooManyRequests):
            rules.enter(mine.limits)
    rules.enter(theirs.limits)
    with pytest.raises(errors.TooManyRequests):
        rules.enter(theirs.limits)
    rules.leave(mine.limits)
    rules.enter(theirs.limits)
    for one in (mine, theirs, theirs):
        rules.leave(one.limits)
    assert rules._in_flight == {}
    assert rules.allowance("other", frozenset({"none"})) is None
    assert rules.allowance("other") is None


def test_a_group_is_no_caller(tmp_path: Path) -> None:
    """A group and a caller of one name have nothing to do with each other."""
    file = tmp_path / "callers.yaml"
    file.write_text('callers: {team: {burst: deny}, "oidc:alice": {priority: high}}\ngroups: {alice: {burst: deny}}\n')
    rules = CallerRules(file)
    assert rules.allowance("other", frozenset({"team"})) is None
    alice = rules.allowance("oidc:alice", frozenset({"team"}))
    assert alice is not None
    assert (alice.high, alice.stays_inside) == (True, False)
