"""Short-lived keys that a game server mints for a player, by `POST /hanse/v1/keys`.

The parent's key signs the request; its terms must say `may_mint`. A child reaches no further than
its parent, lives at most a day, may not mint, and has limits of its own within its parent's. What
it spends counts against the parent's limits too. Since a child ends within a day, its limits of the
day bound all that it can ever spend.

Children are rows like other keys, and not self-contained signed tokens: they end with their parent
in one transaction, nothing but a hash of them is kept anywhere, and a budget needs its row anyway.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from hanse.gateway.budgets.limits import NO_LIMITS, Limits
from hanse.gateway.keys.api_keys import ApiKeys
from hanse.gateway.keys.records import ENTRIES_MAX, USER_CHARS_MAX, ApiKey, Name
from hanse.gateway.keys.scope import narrow
from hanse.gateway.settings import KEY_NAME_CHARS_MAX
from hanse.protocol.errors import RequestError

TTL_S_MAX = 86_400
"""A minted key lives at most so long: no longer than the longest window of its limits."""

_Listed = Annotated[list[Name], Meta(max_length=ENTRIES_MAX)]


class MintBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /hanse/v1/keys` takes.

    Attributes:
        ttl_s: how long the child works.
        name: label; its parent's, if there is none.
        user: the end user whom all of its requests count for, whatever their body says; its
            parent's, if that counts for one.
        models, paths, origins: its reach; its parent's, if none are named.
        limits: of its own, lowered to its parent's. Money is in base units.
    """

    ttl_s: Annotated[int, Meta(ge=1, le=TTL_S_MAX)]
    name: Annotated[str, Meta(max_length=KEY_NAME_CHARS_MAX)] = ""
    user: Annotated[str, Meta(max_length=USER_CHARS_MAX)] = ""
    models: _Listed = msgspec.field(default_factory=list)
    paths: _Listed = msgspec.field(default_factory=list)
    origins: _Listed = msgspec.field(default_factory=list)
    limits: Limits = NO_LIMITS


async def mint_key(keys: ApiKeys, parent: ApiKey, body: MintBody) -> tuple[ApiKey, str]:
    """Issue a child; its text is returned here and nowhere ever again.

    Raises:
        RequestError: `permission_denied` if the parent may not mint, was minted itself, or may not
            mint this or for this user; `api_key_invalid` if it was revoked meanwhile.
    """
    terms = parent.terms
    if not terms.may_mint:
        raise RequestError(
            "permission_denied",
            "this API key may not mint others; one that may: hanse gateway keys create NAME "
            "--may-mint",
        )
    if terms.user and body.user not in ("", terms.user):
        raise RequestError(
            "permission_denied",
            "user: this API key counts for one end user, and so do all that it mints; leave "
            "`user` out, or name the same",
            param="user",
        )
    child = msgspec.structs.replace(
        terms,
        may_mint=False,
        models=narrow("models", terms.models, tuple(body.models)),
        paths=narrow("paths", terms.paths, tuple(body.paths)),
        origins=narrow("origins", terms.origins, tuple(body.origins)),
        limits=terms.limits.within(body.limits),
        user_limits=NO_LIMITS,  # the parent's hold for its children's users
        user=terms.user or body.user,
    )
    return await keys.create(body.name or parent.name, child, ttl_s=body.ttl_s, parent=parent)
