"""Circuit breaker of the platform: when a server that does not respond is called again."""

import pytest

from hooks.platform.circuit import FIRST_PAUSE, IN_A_ROW, LONGEST_PAUSE, Circuit, CircuitState


def opened(circuit: Circuit, now: float = 0.0) -> Circuit:
    """Return the circuit after as many failures in a row as open it."""
    for _ in range(IN_A_ROW):
        circuit.failed(now)
    return circuit


def test_failures_in_a_row_open_the_circuit() -> None:
    """Only failures in a row open the circuit: a response in between starts the count again."""
    seen: list[CircuitState] = []
    circuit = Circuit(seen.append)
    for _ in range(IN_A_ROW - 1):
        circuit.failed(0.0)
    circuit.responded()
    for _ in range(IN_A_ROW - 1):
        circuit.failed(0.0)
    assert circuit.wait(0.0) == 0
    circuit.failed(0.0)
    assert circuit.wait(1.0) == FIRST_PAUSE - 1
    assert seen == [CircuitState.OPEN]


def test_one_probe_decides() -> None:
    """After the pause one call probes while the others wait, and its response closes the circuit."""
    seen: list[CircuitState] = []
    circuit = opened(Circuit(seen.append))
    assert [circuit.wait(FIRST_PAUSE), circuit.wait(FIRST_PAUSE)] == [0, FIRST_PAUSE]
    circuit.responded()
    assert circuit.wait(FIRST_PAUSE) == 0
    assert seen == [CircuitState.OPEN, CircuitState.PROBING, CircuitState.CLOSED]


def test_every_probe_that_fails_doubles_the_pause() -> None:
    """Each failed probe doubles the pause up to the longest one; a response makes it short again."""
    circuit, now, pauses = opened(Circuit()), 0.0, []
    for _ in range(6):
        pauses.append(circuit.wait(now))
        now += pauses[-1]
        assert circuit.wait(now) == 0
        circuit.failed(now)
    assert pauses == [FIRST_PAUSE, 10, 20, 40, LONGEST_PAUSE, LONGEST_PAUSE]
    circuit.responded()
    assert opened(circuit, now).wait(now) == FIRST_PAUSE


def test_a_probe_that_learns_nothing() -> None:
    """After a probe of which nothing was learned the next call probes at once; other calls change nothing."""
    circuit = opened(Circuit())
    assert circuit.wait(FIRST_PAUSE) == 0
    circuit.given_up(FIRST_PAUSE)
    assert circuit.wait(FIRST_PAUSE) == 0
    circuit.responded()
    circuit.given_up(FIRST_PAUSE)
    assert circuit.wait(FIRST_PAUSE) == 0
    assert circuit.state is CircuitState.CLOSED


@pytest.mark.parametrize("broken", [False, True])
def test_a_pause_that_the_server_asks_for(broken: bool) -> None:
    """A pause that the server asks for is kept in every state, and the longest of several counts."""
    circuit = opened(Circuit()) if broken else Circuit()
    circuit.asked_to_wait(60, 0.0)
    circuit.asked_to_wait(30, 0.0)
    assert circuit.wait(10.0) == 50
    assert circuit.wait(60.0) == 0
