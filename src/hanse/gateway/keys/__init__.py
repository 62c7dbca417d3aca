"""API keys that this gateway issues: what each may do, and for how long.

    keys = await open_api_keys(database, time.time)
    key, text = await keys.create("game server", KeyTerms(may_mint=True))
    child, child_text = await mint_key(keys, key, MintBody(ttl_s=600, user="player-7"))
    verify_reach(key, path, origin)          # before anything else is done for a request
    verify_model(key, model)                 # once its body was read

records    what is known of a key, without its text
api_keys   issued, found, revoked; hashes only, held in memory
scope      what a key may reach, and that a child reaches no further
minting    short-lived children of a key that may mint

Source: docs/decisions/0025-keys-and-budgets.md, docs/gateway/keys-and-budgets.md.
"""

from hanse.gateway.keys.api_keys import KEY_CHARS, KEY_PREFIX, ApiKeys, open_api_keys
from hanse.gateway.keys.minting import MintBody, mint_key
from hanse.gateway.keys.records import ApiKey, AtLimit, KeyTerms
from hanse.gateway.keys.scope import verify_model, verify_reach

__all__ = [
    "KEY_CHARS",
    "KEY_PREFIX",
    "ApiKey",
    "ApiKeys",
    "AtLimit",
    "KeyTerms",
    "MintBody",
    "mint_key",
    "open_api_keys",
    "verify_model",
    "verify_reach",
]
