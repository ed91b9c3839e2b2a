"""Completion of `kubectl beamlit`."""

import pytest

from hooks.kubectl.completion import candidates, wants_names


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], ["status", "explain", "decisions", "split", "drill"]),
        (["s"], ["status", "split"]),
        (["explain", ""], ["demo", "default"]),
        (["explain", "dem"], ["demo"]),
        (["explain", "-n", ""], []),
        (["explain", "-n", "a", ""], ["demo", "default"]),
        (["explain", "--output", ""], ["table", "text", "json"]),
        (["split", "demo", ""], []),
        (["drill", ""], ["demo", "default"]),
        (["drill", "demo", "--p"], ["--percentage", "--probe"]),
        (["split", "demo", "30", "--fo"], ["--for", "--force"]),
        (["split", "demo", "30", "--for", "1"], ["10m", "1h"]),
        (["decisions", "-"], None),
        (["nonsense", ""], []),
    ],
)
def test_words_that_could_follow(words: list[str], found: list[str] | None) -> None:
    """Commands, names, flags and values are offered where they may stand, and names of files are not."""
    offered, directive = candidates(words, ["demo", "default"])
    assert directive == ":4"
    if found is None:
        assert {"-f", "--follow", "--limit", "-o", "--system-namespace"} <= set(offered)
    else:
        assert offered == found


def test_files_of_a_flag() -> None:
    """For a kubeconfig the shell offers names of files."""
    assert candidates(["status", "--kubeconfig", ""], []) == ([], ":0")


def test_the_cluster_is_asked_for_names_alone() -> None:
    """Names of models are read from the cluster where one may stand, and nowhere else."""
    assert wants_names(["explain", "d"])
    assert not wants_names(["split", "demo", ""])
    assert not wants_names([])
