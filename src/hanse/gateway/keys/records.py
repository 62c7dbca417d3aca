"""What is known of an API key, without its text."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hanse.gateway.budgets.limits import NO_LIMITS, Limits
from hanse.protocol.limits import NAME_CHARS_MAX

ENTRIES_MAX = 64
"""Models, paths or origins that one key names; a longer list is no scope that anyone reads."""

QUEUE_S_MAX = 600.0
"""How long a request may wait for its limit: as long as a request may take."""

USER_CHARS_MAX = 512
"""An end user's name, as applications send it in `user`; only its hash is kept."""

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Names = Annotated[tuple[Name, ...], Meta(max_length=ENTRIES_MAX)]


class AtLimit(StrEnum):
    """What happens to a request that a limit does not let through."""

    REFUSE = "refuse"
    QUEUE = "queue"
    DEGRADE = "degrade"


class KeyTerms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a key may do. Empty tuples allow everything.

    Attributes:
        models: model names.
        paths: exact, or ending in `/*`.
        origins: of browser pages; a request without an `Origin` is refused if any is named.
        may_mint: whether it may issue short-lived children.
        limits: of the key and its children together.
        user_limits: of each end user (`user` of the body) of the key and its children.
        at_limit: what happens at a limit.
        queue_s: how long to wait, if it queues; then it is refused.
        ladder: name of the ladder, if it degrades; one that is not there refuses.
        request_class: of its requests in the gateway's line, and the highest that they may ask for;
            "" for interactive.
        unjudged: whether its answers are passed on as they come, whether or not they fit the JSON
            schema asked for: of a hosted gateway's broker, which is paid for what was answered.
        user: whom every request of this key counts for, whatever its body says; "" for no one.
    """

    models: Names = ()
    paths: Names = ()
    origins: Names = ()
    may_mint: bool = False
    limits: Limits = NO_LIMITS
    user_limits: Limits = NO_LIMITS
    at_limit: AtLimit = AtLimit.REFUSE
    queue_s: Annotated[float, Meta(ge=0, le=QUEUE_S_MAX)] = 0.0
    ladder: Annotated[str, Meta(max_length=NAME_CHARS_MAX)] = ""
    request_class: Literal["", "interactive", "ambient", "background"] = ""
    user: Annotated[str, Meta(max_length=USER_CHARS_MAX)] = ""
    unjudged: bool = False


ANYTHING = KeyTerms()


class ApiKey(msgspec.Struct, frozen=True):
    """One issued key, without its text.

    Attributes:
        id: short public handle, for `revoke` and the access log.
        name: label that its creator gave.
        created_at: unix seconds.
        revoked_at: unix seconds, None while it works.
        expires_at: unix seconds from which it works no more, None for never.
        parent: id of the key that minted it, "" for none.
        terms: what it may do.
    """

    id: str
    name: str
    created_at: int
    revoked_at: int | None
    expires_at: int | None = None
    parent: str = ""
    terms: KeyTerms = ANYTHING

    def to_document(self) -> dict[str, object]:
        """JSON-ready."""
        terms = msgspec.to_builtins(self.terms)
        for name in ("limits", "user_limits"):
            if name in terms:
                terms[name] = getattr(self.terms, name).to_document()
        return {
            "id": self.id,
            "name": self.name,
            "created_at": self.created_at,
            "revoked_at": self.revoked_at,
            "expires_at": self.expires_at,
            "parent": self.parent or None,
            **terms,
        }
