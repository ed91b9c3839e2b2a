"""The `openai` client as one of the campaign's clients: what users do, again and again, never trying twice by itself.

    python -m faults.openai_client --records records-openai

Orders are those of `faults.load`, of which it knows `port`, `phase` and `stop`.
"""

import argparse
import asyncio
import itertools
import json
import time
from pathlib import Path
from typing import Any, Final

import openai

from faults.origin import digest
from faults.records import Orders, Outcome, Record

CALLERS: Final = 4
PAUSE_SECONDS: Final = 0.15
"""Seconds between two calls of a caller."""
EVENTS: Final = 10
ERRORS: Final[dict[int, type[openai.APIStatusError]]] = {
    400: openai.BadRequestError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    422: openai.UnprocessableEntityError,
    500: openai.InternalServerError,
}
"""Statuses that a backend is made to send, and the exception class that the caller must get for each."""
KINDS: Final = ("chat", "stream", "embeddings", "models", "error", "unknown")


class Callers:
    """Several callers of the API."""

    def __init__(self, records: Path) -> None:
        self._records = records.open("a", buffering=1)
        self._port, self._phase = 0, ""
        self._stop = asyncio.Event()
        self._numbers = itertools.count(1)
        self._told = asyncio.Event()

    async def run(self) -> None:
        """Run until an order to stop, and then until all calls have ended."""
        loop = asyncio.get_running_loop()
        orders = Orders(self._obey)
        loop.add_reader(0, orders.readable)
        await self._told.wait()
        await asyncio.gather(*(self._call(number) for number in range(CALLERS)))
        loop.remove_reader(0)
        self._records.close()

    def _obey(self, order: dict[str, Any]) -> None:
        if order.get("stop"):
            self._stop.set()
        elif "port" in order:
            self._port, self._phase = order["port"], order["phase"]
            self._told.set()

    async def _call(self, first: int) -> None:
        """Run one caller, with one client for as long as the address stays the same."""
        port, client = 0, None
        for kind in itertools.islice(itertools.cycle(KINDS), first, None):
            if self._stop.is_set():
                break
            if client is None or port != self._port:
                if client is not None:
                    await client.close()
                port = self._port
                url = f"http://127.0.0.1:{port}/v1"
                client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=25)
            number = next(self._numbers)
            record = Record(f"openai-{number}", f"openai {kind}", self._phase, time.monotonic())
            await self._one(client, record, kind, number)
            record.ended = time.monotonic()
            self._records.write(record.line() + "\n")
            await asyncio.sleep(PAUSE_SECONDS)
        if client is not None:
            await client.close()

    async def _one(self, client: openai.AsyncOpenAI, record: Record, kind: str, number: int) -> None:
        """Make one call and record its outcome."""
        try:
            record.status = 200
            right = await self._ask(client, record, kind, number)
        except openai.APIStatusError as exc:
            record.outcome, record.status, record.code = Outcome.STATUS, exc.status_code, str(exc.code)
            record.backend = exc.response.headers.get("x-beamlit-backend", "")
            record.detail = f"{type(exc).__name__}: {exc}"
        except openai.APITimeoutError:
            record.outcome = Outcome.TIMEOUT
        except openai.APIConnectionError as exc:
            record.outcome, record.detail = Outcome.RESET, repr(exc.__cause__)
        except openai.APIError as exc:
            record.outcome, record.code = Outcome.TOLD, str(exc.code)  # an error event
        except Exception as exc:  # noqa: BLE001 - httpx's own, in the middle of a stream
            record.outcome, record.detail = Outcome.TRUNCATED, repr(exc)
        else:
            if not right:
                record.outcome = Outcome.WRONG_BODY

    async def _ask(self, client: openai.AsyncOpenAI, record: Record, kind: str, number: int) -> bool:
        """Return whether the response is right.

        Raises:
            openai.APIError: it is an error that was not asked for.
        """
        user = record.user
        messages: Any = [{"role": "user", "content": f"hello from {user}"}]
        if kind == "models":
            return "demo" in [one.id async for one in client.models.list()]
        if kind == "embeddings":
            raw = await client.embeddings.with_raw_response.create(
                model="demo", input="hello", user=user, encoding_format="float"
            )
            record.backend = raw.headers.get("x-beamlit-backend", "")
            return len(raw.parse().data) == 1
        if kind in ("error", "unknown"):
            status = 404 if kind == "unknown" else list(ERRORS)[number % len(ERRORS)]
            model = "nobody" if kind == "unknown" else "demo"
            code = "model_not_found" if kind == "unknown" else "asked_for"
            try:
                await client.chat.completions.create(
                    model=model, messages=messages, user=user, metadata={"status": str(status)}
                )
            except openai.APIStatusError as exc:
                if type(exc) is ERRORS[status] and exc.code == code:
                    return True
                raise
            return False
        if kind == "stream":
            return await self._stream(client, record, messages)
        response = await client.chat.completions.with_raw_response.create(model="demo", messages=messages, user=user)
        record.backend = response.headers.get("x-beamlit-backend", "")
        record.via = response.headers.get("x-gateway", "")
        content = json.loads(response.parse().choices[0].message.content or "{}")
        return bool(content["user"] == user and content["sha256"] == digest(f"hello from {user}"))

    async def _stream(self, client: openai.AsyncOpenAI, record: Record, messages: Any) -> bool:
        """Return whether every event came once and in order."""
        raw = await client.chat.completions.with_raw_response.create(
            model="demo", messages=messages, user=record.user, stream=True, max_tokens=EVENTS
        )
        record.backend = raw.headers.get("x-beamlit-backend", "")
        record.via = raw.headers.get("x-gateway", "")
        text = ""
        async for piece in raw.parse():
            text += piece.choices[0].delta.content or ""
        return text == "".join(f"{record.user}:{number} " for number in range(EVENTS))


async def main() -> None:
    """Run until an order to stop."""
    parser = argparse.ArgumentParser(prog="python -m faults.openai_client", description=__doc__)
    parser.add_argument("--records", type=Path, required=True)
    await Callers(parser.parse_args().records).run()


if __name__ == "__main__":
    asyncio.run(main())
