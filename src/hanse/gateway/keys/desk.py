"""`POST /hanse/v1/keys`: what a game server asks for when a player joins."""

import msgspec

from hanse.gateway.dialects.fields import decode_json
from hanse.gateway.exchange import Exchange
from hanse.gateway.keys.api_keys import ApiKeys
from hanse.gateway.keys.minting import MintBody, mint_key
from hanse.gateway.keys.records import ApiKey

BODY_BYTES_MAX = 65_536
"""Of a request for a key: some names and numbers."""

BODY_READ_S = 10.0

_decode = msgspec.json.Decoder(MintBody, strict=False).decode


async def answer_mint(keys: ApiKeys, exchange: Exchange, parent: ApiKey) -> None:
    """Issue a child of the key that asks; amounts may come as decimal strings."""
    body = await exchange.read_body(BODY_BYTES_MAX, BODY_READ_S)
    child, text = await mint_key(keys, parent, decode_json(_decode, body))
    await exchange.send_json(200, {"api_key": text, **child.to_document()})
