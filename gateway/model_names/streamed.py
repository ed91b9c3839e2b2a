"""Name of a model replaced in a body that is sent piece by piece, whose rest is looked through meanwhile."""

from gateway import errors
from gateway.model_names.body import BodyReader, written
from gateway.model_names.scanner import FoundName


class StreamedName:
    """Change of one body for one attempt at a backend (`upstream.request.BodyChange`)."""

    __slots__ = ("_end", "_name", "_position", "_reader", "_start")

    def __init__(self, found: FoundName, name: str | None, reader: BodyReader | None) -> None:
        """Replace nothing yet.

        Args:
            found: Place of the name in the body.
            name: Name for the backend; None to leave it as it is.
            reader: Reader that has not seen all of the body; None where it has.

        Raises:
            errors.ModelMissing: The body is a form whose boundary would end the name.
        """
        self._start = found.start
        self._end = found.end
        self._name: bytes | None = None if name is None else written(found, name)
        self._reader = reader
        self._position = 0

    @property
    def looks(self) -> bool:
        """Whether there is a part of the body that was not looked through yet."""
        return self._reader is not None and not self._reader.ended

    @property
    def growth(self) -> int:
        """Bytes that the body becomes longer; negative where it becomes shorter."""
        return 0 if self._name is None else len(self._name) - (self._end - self._start)

    def apply(self, data: bytes) -> bytes:
        """Return what is sent for the next piece of the body.

        Raises:
            errors.ModelMissing: The body names its model a second time, or in a way that servers may read differently.
        """
        position = self._position
        self._position = after = position + len(data)
        reader = self._reader
        if reader is not None and after > reader.fed:
            for _ in reader.feed(data[reader.fed - position :] if reader.fed > position else data):
                pass
            if reader.problem is not None:
                raise errors.ModelMissing(reader.problem)
        name = self._name
        if name is None or after <= self._start or position >= self._end:
            return data
        # The piece that holds the first byte of the old name takes the new one.
        before = data[: self._start - position] + name if position <= self._start else b""
        return before + data[self._end - position :] if after > self._end else before

    def finish(self) -> None:
        """Take the end of the body.

        Raises:
            errors.ModelMissing: The body ends too early.
        """
        reader = self._reader
        if reader is None or reader.ended:
            return
        reader.finish()
        reader.name(required=True)
