"""Model that a request asks for: found in its body and in its target, and renamed for a backend."""

import asyncio
from collections.abc import Collection
from typing import Final

from gateway import errors
from gateway.body_text import CHARGED_BYTES
from gateway.http.exchange import Exchange
from gateway.model_names import body, form, json_scanner, path
from gateway.model_names.media_type import BodyKind
from gateway.model_names.scanner import FoundName

WHOLE_BYTES: Final = 1 << 20
"""Bytes of a body that is read to its end before any of it is sent, so that no backend sees one that is refused."""
DISAGREEMENT: Final = "The body and the query of the request name different models."
PATH_DISAGREES: Final = "The path of the request and what is sent with it name different models."


class RequestedModel:
    """Name of the model that a request asks for, and where it stands."""

    __slots__ = ("decoded", "has_path", "in_body", "in_query", "name", "reader", "unpacked")

    def __init__(
        self,
        name: str,
        in_body: FoundName | None = None,
        in_query: FoundName | None = None,
        decoded: bytes | None = None,
        reader: body.BodyReader | None = None,
        *,
        unpacked: bool = False,
    ) -> None:
        self.name = name
        self.in_body = in_body
        self.in_query = in_query
        self.decoded = decoded
        """The body without its content coding; None where it has none."""
        self.reader = reader
        """Reader that has not seen the rest of the body yet, which is sent on as it comes; None where it has seen all.
        """
        self.has_path = False
        """Whether the path has a name as well, at least with what a backend has in front of it."""
        self.unpacked = unpacked
        """Whether the body is sent without its content coding, which makes it mean the same to every server."""

    @property
    def is_settled(self) -> bool:
        """Whether the request is sent on as it came where a backend has no other name than `name` for the model."""
        return self.reader is None and not self.has_path and not self.unpacked


def with_path(
    model: RequestedModel | None,
    target: bytes,
    names: Collection[str],
    namespace: str,
    prefixes: Collection[bytes] = (b"",),
) -> RequestedModel | None:
    """Return the model that a request asks for, the name in its path included.

    Args:
        model: Model by the body and the query.
        target: Target in whose path a name may stand.
        names: Names that may stand there.
        namespace: Namespace of the route, which may stand before a name.
        prefixes: Paths that backends have in front of the target, with which there may be a name in it.

    Raises:
        errors.ModelNotFound: The name in the path is none of `names`.
        errors.ModelMissing: Path, body and query name different models.
    """
    for prefix in prefixes:
        if not prefix and target in path.PLACELESS:
            continue
        in_path = path.in_target(target, names, prefix)
        if in_path is None:
            continue
        if in_path.name not in names:
            raise errors.ModelNotFound
        if model is None:
            model = RequestedModel(in_path.name)
        elif model.name.removeprefix(f"{namespace}/") != in_path.name.removeprefix(f"{namespace}/"):
            raise errors.ModelMissing(PATH_DISAGREES)
        model.has_path = True
    return model


async def find(exchange: Exchange, target: bytes, limit: int, *, required: bool) -> RequestedModel | None:
    """Return the model that a request asks for; None where it names none.

    The body is read as far as it may name a model: by its media type, or because it begins like a JSON object.

    Args:
        exchange: Exchange with the request.
        target: Target in whose query a name may stand.
        limit: Bytes that the body may have, also when it is decoded.
        required: Whether a body that cannot be read is refused where nothing else has a name.

    Raises:
        errors.ModelMissing: Servers may read different names, or the body cannot be read although it has to be.
        errors.UnsupportedCoding: The body has a content coding that cannot be read.
        errors.MalformedCoding: The body does not have its content coding.
        errors.BodyTooLarge: The body is larger than the limit.
        errors.BodyTimeout: No byte of the body arrived before the body deadline.
    """
    head = exchange.head
    in_query = form.in_target(target)
    if isinstance(in_query, str):
        raise errors.ModelMissing(in_query)
    in_body: FoundName | None = None
    decoded: bytes | None = None
    rest: body.BodyReader | None = None
    unpacked = False
    if head.has_body and (required or await _may_name(exchange, body.describe(head.fields), limit)):
        whole = exchange.whole_body()
        name = None if whole is None else body.plain_name(head.fields, whole)
        if name is not None:
            if len(whole or b"") > limit:
                raise errors.BodyTooLarge
            if in_query is None:
                return RequestedModel(name, body.PLAIN)
            in_body = body.PLAIN._replace(name=name)
        else:
            reader = await _read(exchange, limit)
            decoded = reader.decoded
            unpacked = reader.is_packed_form
            if not reader.ended:
                in_body, rest = reader.found, reader
            elif reader.fed:
                in_body = reader.name(required=required and in_query is None)
    if in_body is None:
        return None if in_query is None else RequestedModel(in_query.name, None, in_query, decoded, unpacked=unpacked)
    if in_query is not None and in_query.name != in_body.name:
        raise errors.ModelMissing(DISAGREEMENT)
    return RequestedModel(in_body.name, in_body, in_query, decoded, rest, unpacked=unpacked)


async def _read(exchange: Exchange, limit: int) -> body.BodyReader:
    """Read a body as far as it is needed to know the model: to its end where it is small or names none early.

    Raises:
        errors.GatewayError: As `find` does.
    """
    reader = body.BodyReader(body.describe(exchange.head.fields), limit)
    length = exchange.head.content_length
    large = length is not None and length > WHOLE_BYTES
    index = charged = 0
    while (piece := await exchange.read_next(index, limit)) is not None:
        for _ in reader.feed(piece):
            if reader.decoded_bytes > charged:
                exchange.charge(CHARGED_BYTES)
                charged += CHARGED_BYTES
            await asyncio.sleep(0)
        if large or reader.fed > WHOLE_BYTES:
            if reader.is_certain:
                return reader
            if reader.problem is not None and not reader.decoded_bytes:
                break  # nothing behind it changes that
        index += 1
    reader.finish()
    return reader


async def _may_name(exchange: Exchange, description: body.Description, limit: int) -> bool:
    """Return whether a body may name a model; one of another media type does when it begins like a JSON object."""
    if description.media.kind is not BodyKind.OTHER:
        return True
    if description.coding and body.is_readable(description):
        return True
    # A server that does not know the coding either may read the body as it is.
    return json_scanner.may_be_object(await exchange.read_next(0, limit) or b"")
