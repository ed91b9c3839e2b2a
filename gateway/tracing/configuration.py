"""Configuration of traces: the section `gateway.tracing`, and the environment variables of OpenTelemetry beside it.

A setting wins over a variable. Variables alone turn traces on where they name an endpoint; one that cannot be used then
leaves traces off, as OpenTelemetry asks for, and is no reason not to serve.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from gateway.settings import TracingSettings
from gateway.tracing.spans import Tracer
from program.settings import SettingsError

if TYPE_CHECKING:
    from gateway.tracing.export import Exporter

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"
_SAMPLERS: Final[Mapping[str, tuple[bool, float | None]]] = {
    "always_on": (False, 1.0),
    "always_off": (False, 0.0),
    "traceidratio": (False, None),
    "parentbased_always_on": (True, 1.0),
    "parentbased_always_off": (True, 0.0),
    "parentbased_traceidratio": (True, None),
}
"""Samplers by their names in OTEL_TRACES_SAMPLER: whether they follow the client, and the ratio; None: the argument."""


log = structlog.get_logger(__name__)


class Tracing(NamedTuple):
    """Configuration of traces that are on."""

    endpoint: str | None
    """URL that spans are sent to; None where the exporter takes it from the environment."""
    ratio: float
    """Part of the traces that is kept."""
    parent_based: bool
    """Whether traces that clients have begun are kept as their flag says."""
    delay_seconds: float
    """Seconds for which traces gather before they are sent."""


def start(settings: TracingSettings, environment: Mapping[str, str]) -> "tuple[Tracer, Exporter] | None":
    """Start to export traces where settings or environment ask for them; return the tracer and the exporter.

    Raises:
        SettingsError: Settings ask for traces, and there can be none.
    """
    try:
        tracing = configuration(settings, environment)
        if tracing is None:
            return None
        try:
            from gateway.tracing.export import Exporter
        except ImportError as exc:
            raise SettingsError(
                "traces need the packages of an extra, which are not installed: pip install 'beamlit-controller[otlp]'."
            ) from exc
    except SettingsError as exc:
        if settings.endpoint is not None:
            raise
        log.warning("traces_off", message=str(exc))
        return None
    tracer = Tracer(tracing.ratio, parent_based=tracing.parent_based)
    return tracer, Exporter(tracer, tracing.endpoint, delay_seconds=tracing.delay_seconds)


def configuration(settings: TracingSettings, environment: Mapping[str, str]) -> Tracing | None:
    """Return the configuration of traces; None where they are off.

    Raises:
        SettingsError: A variable cannot be used.
    """
    given = {name: value.strip() for name, value in environment.items() if name.startswith("OTEL_")}
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true" or given.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    if settings.endpoint is None:
        if not any(given.get(name) for name in _ENDPOINTS):
            return None
        protocol = next((given[name] for name in _PROTOCOLS if given.get(name)), _PROTOCOL)
        if protocol != _PROTOCOL:
            raise SettingsError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL must be {_PROTOCOL}, not {protocol[:32]!r}: set it so, with an endpoint"
                " that takes it (port 4318 as a rule), or turn traces off by OTEL_TRACES_EXPORTER=none."
            )
    parent_based, ratio = _sampler(settings, given)
    endpoint = None if settings.endpoint is None else f"{settings.endpoint.rstrip('/')}/v1/traces"
    milliseconds = _number(given, "OTEL_BSP_SCHEDULE_DELAY", 5000.0, 600000.0)
    return Tracing(endpoint, ratio, parent_based, milliseconds / 1000)


def _sampler(settings: TracingSettings, given: Mapping[str, str]) -> tuple[bool, float]:
    """Return whether the sampler follows the client, and the ratio.

    Raises:
        SettingsError: A variable cannot be used.
    """
    name = given.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    if name not in _SAMPLERS:
        raise SettingsError(f"OTEL_TRACES_SAMPLER must be one of {', '.join(_SAMPLERS)}, not {name[:32]!r}.")
    parent_based, ratio = _SAMPLERS[name]
    if settings.ratio is not None:
        return parent_based, settings.ratio
    return parent_based, _number(given, "OTEL_TRACES_SAMPLER_ARG", 1.0, 1.0) if ratio is None else ratio


def _number(given: Mapping[str, str], name: str, default: float, most: float) -> float:
    """Return the number that a variable has, or its default.

    Raises:
        SettingsError: It has none from 0 to `most`.
    """
    text = given.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise SettingsError(f"{name} must be a number from 0 to {most:g}, not {text[:32]!r}.")
    return value
