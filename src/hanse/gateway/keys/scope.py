"""What a key may reach, and that a child's reach is within its parent's.

Path and origin are checked before a body is read, the model once it was. An entry of `paths` is a
path, or a folder ending in `/*`; models and origins are names, and `*` in them is a star. A minted
key reaches what a player needs and never the gateway's own affairs, whatever its parent may. What
shows all tenants of a gateway to each other is for its owner's keys: those that are limited in
nothing, and those whose `paths` name it in full.
"""

from hanse.gateway.keys.records import ApiKey
from hanse.protocol.errors import RequestError

_OWNERS_PATHS = ("/hanse/v1/money", "/hanse/v1/status")
"""What is seen there are all keys, their limits and the money behind them."""

_NO_CHILDS_PATHS = ("/hanse/v1/keys", *_OWNERS_PATHS)
"""Not for keys that were minted: they are given to strangers."""


def verify_reach(key: ApiKey, path: str, origin: bytes) -> None:
    """Check path and origin.

    Raises:
        RequestError: `permission_denied`, naming both sides.
    """
    terms = key.terms
    if key.parent and path in _NO_CHILDS_PATHS:
        raise RequestError("permission_denied", f"a minted key may not use {path}")
    if terms.paths and not any(_covers(allowed, path) for allowed in terms.paths):
        raise RequestError(
            "permission_denied",
            f"this API key is for {', '.join(terms.paths)}, not for {path:.80}",
        )
    if path in _OWNERS_PATHS and path not in terms.paths and not _is_owners(key):
        raise RequestError(
            "permission_denied",
            f"{path} shows all keys of this gateway: it is for API keys without scope and limits, "
            f"and for those made with --path {path}",
        )
    if terms.origins and origin.decode("latin-1") not in terms.origins:
        raise RequestError(
            "permission_denied",
            f"this API key is for pages of {', '.join(terms.origins)}, the request's Origin is "
            f"{origin.decode('latin-1')!r:.80}",
        )


def verify_model(key: ApiKey, model: str) -> None:
    """Check the model.

    Raises:
        RequestError: `permission_denied`, naming both sides.
    """
    if key.terms.models and model not in key.terms.models:
        raise RequestError(
            "permission_denied",
            f"this API key is for {', '.join(key.terms.models)}, not for {model:.80}",
            param="model",
        )


def narrow(name: str, parent: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, ...]:
    """The entries of a child: what it asks for, all of it within its parent's.

    Raises:
        RequestError: `permission_denied`, naming the first that is not.
    """
    if not parent or not asked:
        return asked or parent
    for entry in asked:
        if entry not in parent and not (
            name == "paths" and any(_covers(allowed, entry) for allowed in parent)
        ):
            raise RequestError(
                "permission_denied",
                f"{name}: {entry:.80} is not within the parent's {', '.join(parent)}",
                param=name,
            )
    return asked


def _is_owners(key: ApiKey) -> bool:
    terms = key.terms
    scoped = terms.models or terms.paths or terms.origins or terms.user
    return not scoped and terms.limits.is_none and terms.user_limits.is_none


def _covers(allowed: str, entry: str) -> bool:
    return entry == allowed or (allowed.endswith("/*") and entry.startswith(allowed[:-1]))
