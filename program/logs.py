"""Events as JSON lines."""

import logging
import sys
from typing import Any, TextIO

import orjson
import structlog


def configure(level: str, stream: TextIO | None = None) -> None:
    """Log events as JSON lines with a time, for this process; warnings of libraries among them."""
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
    """Brings what libraries log into our form: a line that is not JSON is lost to whoever collects them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as an event."""
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, message=record.getMessage(), exc_info=record.exc_info
        )


def _json(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=repr).decode()
