"""A `MarketClient` over OpenAI-compatible servers: nothing is chosen by price, signed or paid.

A request goes to the server with the fewest requests at work among those that have its model, the
first named where they are equal. One that fails rests, twice as long each time up to
`REST_S_MAX`; where all rest, the one that is up first is asked all the same. Until an answer has
begun, up to `UPSTREAMS_TRIED_MAX` servers are tried.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from hanse.gateway.plain.answer import PlainAnswer
from hanse.gateway.plain.refusals import read_refusal
from hanse.gateway.plain.upstreams import MODELS_MAX, Upstream
from hanse.http import GATHER_S, HttpBrokenError, HttpClient, HttpConnectError, HttpResponse
from hanse.market import Needs
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.wire.forms import get_body_type
from hanse.protocol.wire.server_errors import ERROR_BODY_BYTES_MAX
from hanse.sdk.purchase.ask import Ask, read_ask
from hanse.sdk.transport import TransportLimits

if TYPE_CHECKING:  # the chain's libraries take long to import
    from hanse.sdk.money import Money

UPSTREAMS_TRIED_MAX = 3
"""Servers that one request tries before its error goes to the application."""

REST_S = 0.5
REST_S_MAX = 30.0
"""How long a server that failed is left alone: doubled each time, from the first to the second."""

MODELS_REFRESH_S = 30.0
"""Between looks at which models the servers list."""

MODELS_HEAD_S = 5.0
"""For that list; a server that takes longer is busy with something else."""

KEEP_ALIVE_S = 4.0
"""An idle connection is dropped before common servers do it (uvicorn after 5 s)."""

NOBODY = "0x" + 40 * "0"


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model] = []


@dataclass(slots=True, eq=False)
class _Place:
    """One server and how it fares; `models` is None while it is not known what it has."""

    name: str
    upstream: Upstream
    headers: dict[str, str]
    models: frozenset[str] | None
    at_work: int = 0
    failures: int = 0
    rests_until: float = 0.0
    urls: dict[str, str] = field(default_factory=dict)

    def get_url(self, path: str) -> str:
        """Of an operation; the base URL has the version already."""
        url = self.urls.get(path)
        if url is None:
            url = self.urls[path] = self.upstream.base_url + path.removeprefix("/v1")
        return url


class PlainClient:
    """See the module; `hanse.gateway.client.MarketClient` says what each method promises."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        http: HttpClient,
        limits: TransportLimits | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._limits = limits or TransportLimits()
        self._clock_s = clock_s
        self._places = [_open_place(n, upstream) for n, upstream in enumerate(upstreams, 1)]

    async def request(
        self,
        path: str,
        body: bytes,
        needs: Needs | None = None,
        asked: list[str] | None = None,
    ) -> PlainAnswer:
        """Hand the request on; of the needs only who is excluded counts.

        Raises:
            RequestError: it is at fault, or `model_not_found`.
            TransientError: nobody serves it now.
        """
        ask = read_ask(path, body, is_paid=False)
        excluded = set(needs.excluded) if needs is not None else set()
        failure: TransientError | None = None
        for _ in range(UPSTREAMS_TRIED_MAX):
            place = self._find_place(ask.model, excluded)
            if place is None:
                break
            if asked is not None:
                asked.append(place.name)
            try:
                return await self._ask(place, ask)
            except TransientError as error:
                failure = error
                excluded.add(place.name)
        raise failure or RequestError(
            "model_not_found", f"no upstream has the model {ask.model!r:.160}", param="model"
        )

    def report_failure(self, provider: str, reason: str) -> None:
        """Let this server rest for a while."""
        for place in self._places:
            if place.name == provider:
                self._note(place, ok=False)

    def get_models(self) -> dict[str, Any]:
        """OpenAI's list of what the servers have."""
        names = sorted({name for place in self._places for name in place.models or ()})
        data = [
            {"id": name, "object": "model", "created": 0, "owned_by": "local"} for name in names
        ]
        return {"object": "list", "data": data}

    async def read_money(self) -> "Money":
        """None anywhere: there is no wallet."""
        from hanse.sdk.money import Money

        return Money(NOBODY, 0, (), 0, (), ())

    async def refresh_models(self) -> None:
        """Look at which models the servers list that were named without any."""
        await asyncio.gather(
            *(self._fetch_models(p) for p in self._places if not p.upstream.models)
        )

    async def run(self) -> None:
        """Go on looking, for ever."""
        while True:
            await asyncio.sleep(MODELS_REFRESH_S)
            await self.refresh_models()

    def _find_place(self, model: str, excluded: set[str]) -> _Place | None:
        now = self._clock_s()
        found: _Place | None = None
        found_rank = (0.0, 0)
        for place in self._places:
            if place.name in excluded or (place.models is not None and model not in place.models):
                continue
            rank = (max(0.0, place.rests_until - now), place.at_work)
            if found is None or rank < found_rank:
                found, found_rank = place, rank
        return found

    async def _ask(self, place: _Place, ask: Ask) -> PlainAnswer:
        limits = self._limits
        place.at_work += 1
        try:
            response = await self._send("POST", place, ask.path, ask.body, limits.whole_s)
            if response.status != 200:
                raise await self._read_refusal(place, response)
            kind = response.headers.get("content-type", "")
            if ask.is_stream and not kind.startswith("text/event-stream"):
                response.close()
                raise _get_unreachable(place, "did not stream its answer")
        except BaseException as error:
            place.at_work -= 1
            if isinstance(error, TransientError) and error.code != "rate_limited":
                self._note(place, ok=False)
            raise
        response.set_silence(limits.silence_s)
        if ask.is_stream:
            response.gather(GATHER_S)

        def end(error: HanseError | None) -> None:
            place.at_work -= 1
            self._note(place, ok=error is None)

        return PlainAnswer(place.name, response, is_stream=ask.is_stream, on_end=end)

    async def _send(
        self, method: str, place: _Place, path: str, body: bytes, head_s: float
    ) -> HttpResponse:
        headers = place.headers
        if body[:2] == b"--":  # a form; JSON never begins so
            headers = {**headers, "content-type": get_body_type(path, body)}
        try:
            return await self._http.send(
                method,
                place.get_url(path),
                headers,
                body,
                silence_s=head_s,
                total_s=self._limits.total_s,
            )
        except HttpConnectError:
            raise _get_unreachable(place, "cannot be reached") from None
        except HttpBrokenError:
            raise _get_unreachable(place, "did not answer") from None

    async def _read_refusal(self, place: _Place, response: HttpResponse) -> HanseError:
        response.set_silence(self._limits.connect_s)
        raw = b""
        try:
            while len(raw) < ERROR_BODY_BYTES_MAX and (data := await response.read()):
                raw += data
        except HttpBrokenError:
            pass  # its status says enough
        finally:
            response.close()
        retry_after = response.headers.get("retry-after")
        return read_refusal(
            place.name,
            response.status,
            raw[:ERROR_BODY_BYTES_MAX],
            place.upstream.key,
            retry_after,
        )

    async def _fetch_models(self, place: _Place) -> None:
        """A server that does not say keeps what it said last."""
        try:
            response = await self._send("GET", place, "/models", b"", MODELS_HEAD_S)
        except TransientError:
            return
        answer = PlainAnswer(place.name, response, is_stream=False, on_end=lambda _: None)
        try:
            if response.status == 200:
                listed = msgspec.json.decode(await answer.read(), type=_Models).data
                place.models = frozenset(model.id for model in listed[:MODELS_MAX])
        except (HanseError, msgspec.DecodeError, UnicodeDecodeError):
            return
        finally:
            await answer.close()

    def _note(self, place: _Place, *, ok: bool) -> None:
        if ok:
            place.failures = 0
            place.rests_until = 0.0
            return
        rest_s = min(REST_S_MAX, REST_S * 2**place.failures)
        place.failures = min(place.failures + 1, 16)
        place.rests_until = self._clock_s() + rest_s


@contextlib.asynccontextmanager
async def open_plain(
    upstreams: Sequence[Upstream], limits: TransportLimits | None = None
) -> AsyncIterator[PlainClient]:
    """A client that has looked at its servers' models, and goes on looking."""
    limits = limits or TransportLimits()
    http = HttpClient(connect_s=limits.connect_s, idle_s=KEEP_ALIVE_S)
    client = PlainClient(upstreams, http, limits)
    await client.refresh_models()
    looking = asyncio.create_task(client.run())
    try:
        yield client
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await http.close()


def _open_place(number: int, upstream: Upstream) -> _Place:
    headers = {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "user-agent": "hanse",
    }
    if upstream.key:
        headers["authorization"] = f"Bearer {upstream.key}"
    name = "local" if number == 1 else f"local-{number}"
    return _Place(name, upstream, headers, frozenset(upstream.models) or None)


def _get_unreachable(place: _Place, what: str) -> TransientError:
    return TransientError(
        "provider_unreachable",
        f"the upstream {what}. Whoever runs this gateway can see to the server of its --upstream",
        details={"upstream": place.name},
    )
