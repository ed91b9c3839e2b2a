"""The log of a program: events as JSON lines."""

import logging
import sys
from typing import Any, TextIO

import orjson
import structlog


def configure(level: str, stream: TextIO | None = None) -> None:
    """Log events of this process as JSON lines with a time, and warnings of libraries in the same form.

    Args:
        level: least level that is logged: debug, info, warning or error.
        stream: where the lines go; standard error when None.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    if not any(isinstance(handler, _Library) for handler in root.handlers):
        root.addHandler(_Library())


class _Library(logging.Handler):
    """Logs records of libraries as events: a program that collects JSON lines would drop any other line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as an event."""
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, message=record.getMessage(), exc_info=record.exc_info
        )


def _json(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=repr).decode()
