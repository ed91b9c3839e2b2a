"""Configuration of traces by settings and by the environment variables of OpenTelemetry."""

import sys
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.settings import TracingSettings
from gateway.tracing.configuration import Tracing, configuration, start
from program.settings import SettingsError

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


def settings(**values: Any) -> TracingSettings:
    """Return the section `gateway.tracing`."""
    return TracingSettings.model_validate(values)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_SERVICE_NAME": "x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        ENDPOINT | {"OTEL_SDK_DISABLED": "true"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_off(environment: dict[str, str]) -> None:
    """Traces are off without an endpoint, and where the environment turns them off."""
    assert configuration(settings(), environment) is None
    assert start(settings(), environment) is None


@pytest.mark.parametrize(
    ("values", "environment", "expected"),
    [
        ({"endpoint": "http://c:4318"}, {}, Tracing("http://c:4318/v1/traces", 1.0, True, 5.0)),
        ({"endpoint": "http://c:4318/otlp/"}, ENDPOINT, Tracing("http://c:4318/otlp/v1/traces", 1.0, True, 5.0)),
        ({}, ENDPOINT, Tracing(None, 1.0, True, 5.0)),
        ({}, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, Tracing(None, 1.0, True, 5.0)),
        ({"ratio": 0.1}, ENDPOINT, Tracing(None, 0.1, True, 5.0)),
        ({"ratio": 0}, ENDPOINT | {"OTEL_TRACES_SAMPLER": "always_on"}, Tracing(None, 0.0, False, 5.0)),
        ({}, ENDPOINT | {"OTEL_TRACES_SAMPLER": "always_off"}, Tracing(None, 0.0, False, 5.0)),
        ({}, ENDPOINT | {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, Tracing(None, 0.0, True, 5.0)),
        (
            {},
            ENDPOINT | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            Tracing(None, 0.25, True, 5.0),
        ),
        (
            {},
            ENDPOINT | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_BSP_SCHEDULE_DELAY": "200"},
            Tracing(None, 1.0, False, 0.2),
        ),
        ({}, ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, Tracing(None, 1.0, True, 5.0)),
    ],
)
def test_on(values: dict[str, Any], environment: dict[str, str], expected: Tracing) -> None:
    """An endpoint turns traces on; a setting wins over a variable."""
    assert configuration(settings(**values), environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, r"OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not 'grpc'"),
        ({"OTEL_TRACES_SAMPLER": "sometimes"}, r"OTEL_TRACES_SAMPLER must be one of .*, not 'sometimes'\."),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
            r"OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1, not '2'\.",
        ),
        ({"OTEL_BSP_SCHEDULE_DELAY": "soon"}, r"OTEL_BSP_SCHEDULE_DELAY must be a number from 0 to 600000, not 'soon'"),
    ],
)
def test_a_variable_that_cannot_be_used(environment: dict[str, str], message: str) -> None:
    """A variable that cannot be used leaves traces off with a line in the log, unless settings ask for traces."""
    with pytest.raises(SettingsError, match=message):
        configuration(settings(), ENDPOINT | environment)
    with capture_logs() as logs:
        assert start(settings(), ENDPOINT | environment) is None
    assert [entry["event"] for entry in logs] == ["traces_off"]
    if "PROTOCOL" not in str(environment):
        with pytest.raises(SettingsError, match=message):
            start(settings(endpoint="http://c:4318"), environment)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the packages of the extra, settings that ask for traces are an error, and variables a line in the log."""
    monkeypatch.setitem(sys.modules, "gateway.tracing.export", None)
    with pytest.raises(SettingsError, match=r"pip install 'beamlit-controller\[otlp\]'"):
        start(settings(endpoint="http://c:4318"), {})
    with capture_logs() as logs:
        assert start(settings(), ENDPOINT) is None
    assert "beamlit-controller[otlp]" in logs[0]["message"]
