"""What an application's headers ask of the choice of provider, through a real market."""

from pathlib import Path

import aiohttp
import msgspec
import pytest

from hanse.gateway.selling.wishes import PROVIDERS_MAX, SESSION_CHARS_MAX, read_needs
from hanse.market import BALANCED, Needs
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Prices
from tests.gateway.market_parts import CHAT_MODEL, CHEAP, DEAR, Market, open_market

BODY = {
    "model": CHAT_MODEL,
    "messages": [{"role": "user", "content": "one two"}],
    "max_tokens": 4,
}


async def ask(market: Market, **wishes: str) -> tuple[int, dict[str, str], dict]:
    headers = {"Authorization": f"Bearer {market.gateway.key}"}
    headers |= {f"hanse-{name.replace('_', '-')}": value for name, value in wishes.items()}
    url = f"{market.gateway.base_url}/chat/completions"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=BODY, headers=headers) as response,
    ):
        found = {name.lower(): value for name, value in response.headers.items()}
        return response.status, found, await response.json()


async def test_headers_narrow_the_choice_and_explain_it(tmp_path: Path):
    async with open_market(tmp_path) as market:
        status, headers, _ = await ask(market)
        assert (status, headers["hanse-provider"]) == (200, CHEAP)
        assert "hanse-match" not in headers
        status, headers, _ = await ask(market, providers=DEAR, explain="1", policy="balanced")
        assert (status, headers["hanse-provider"]) == (200, DEAR)
        assert headers["hanse-match"].startswith(f"provider={DEAR}, why=prefix, policy=balanced")
        assert "price=" in headers["hanse-match"]
        status, headers, _ = await ask(market, explain="1", session="npc-7")
        assert "why=session" in headers["hanse-match"]
        for wishes in ({"region": "eu"}, {"verifiability": "tee"}, {"max_fee": "0"}):
            status, _, document = await ask(market, **wishes)
            assert (status, document["error"]["code"]) == (422, "unprocessable"), wishes
        status, _, document = await ask(market, policy="quickest")
        assert (status, document["error"]["param"]) == (400, "hanse-policy")


async def test_other_settings_choose_otherwise_from_the_next_request_on(tmp_path: Path):
    async with open_market(tmp_path) as market:
        app = market.gateway.server.gateway
        _, headers, _ = await ask(market, explain="1")
        assert ", policy=cheapest," in headers["hanse-match"]
        app.apply(
            msgspec.structs.replace(app.settings, policy=BALANCED, region="eu", trial_share=0.0)
        )
        _, headers, _ = await ask(market, explain="1")
        assert ", policy=balanced," in headers["hanse-match"]
        assert headers["hanse-match"].endswith(", locality=0.05")  # nobody is in eu
        app.apply(msgspec.structs.replace(app.settings, region=""))
        _, headers, _ = await ask(market, explain="1")
        assert headers["hanse-match"].endswith(", locality=0")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hanse-policy", "best"),
        ("hanse-session", "s" * (SESSION_CHARS_MAX + 1)),
        ("hanse-session", ""),
        ("hanse-max-fee", "1.5"),
        ("hanse-max-fee", "9" * 40),
        ("hanse-max-prices", "1,2"),
        ("hanse-max-prices", "1,2,-3"),
        ("hanse-region", "EU"),
        ("hanse-verifiability", "certain"),
        ("hanse-quantisation", ""),
        ("hanse-quantisation", "Q8\x80"),
        ("hanse-deadline-ms", "0"),
        ("hanse-deadline-ms", "soon"),
        ("hanse-providers", ", ".join([CHEAP] * (PROVIDERS_MAX + 1))),
        ("hanse-explain", "yes"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused_by_its_name(name: str, value: str):
    with pytest.raises(RequestError) as refused:
        read_needs({name.encode(): value.encode()}, Needs(), "key", [])
    assert refused.value.param == name


def test_headers_add_to_what_stands_and_loosen_nothing():
    wishes = {
        b"hanse-policy": b"balanced",
        b"hanse-session": b"npc",
        b"hanse-max-fee": b"900",
        b"hanse-providers": f"{CHEAP}, {DEAR}".encode(),
        b"hanse-deadline-ms": b"1500",
        b"hanse-max-prices": b"10, 20,30",
    }
    held = Needs(max_prices=Prices(9, 99, 99), max_fee=500, providers=frozenset({DEAR}))
    needs = read_needs(wishes, held, "key", [])
    assert (needs.policy, needs.max_fee, needs.deadline_s) == (BALANCED, 500, 1.5)
    assert needs.providers == {DEAR}
    assert needs.session == "key/npc"
    assert needs.max_prices == Prices(9, 20, 30)
    with pytest.raises(RequestError):
        read_needs({b"hanse-providers": CHEAP.encode()}, held, "key", [])
    assert read_needs({}, held, "key", []) is held
    assert read_needs({b"hanse-class": b"ambient"}, held, "key", []) is held
