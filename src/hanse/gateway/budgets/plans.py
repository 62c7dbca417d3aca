"""Which limits hold for a request: of its key and the key's parent, the gateway, its end user."""

import hashlib

import msgspec

from hanse.gateway.budgets.configuration import GatewayBudgets
from hanse.gateway.budgets.holds import Demand
from hanse.gateway.budgets.limits import WINDOWS, Limits
from hanse.gateway.keys import ApiKey
from hanse.gateway.keys.records import USER_CHARS_MAX
from hanse.protocol.errors import RequestError

_GATEWAY = "gateway"


class _User(msgspec.Struct):
    user: str | None = None


_decode_user = msgspec.json.Decoder(_User).decode


class Plan:
    """What limits hold for a key: demands that are always the same, and those by end user.

    `is_by_user` says whether there are any of the latter.
    """

    __slots__ = ("budgets", "demands", "is_by_user", "key", "owner", "parent", "user_limits")

    def __init__(self, key: ApiKey, parent: ApiKey | None, budgets: GatewayBudgets) -> None:
        self.key, self.parent, self.budgets = key, parent, budgets
        self.owner = key.parent or key.id
        above = parent.terms if parent is not None else key.terms
        self.user_limits = above.user_limits
        self.is_by_user = not above.user_limits.is_none
        self.demands = make_demands(f"key:{key.id}", key.terms.limits)
        if parent is not None:
            self.demands += make_demands(f"key:{parent.id}", parent.terms.limits)
        self.demands += make_demands(_GATEWAY, budgets.limits)

    def get_demands(self, body: bytes) -> list[Demand]:
        """All that a request of this key must be within.

        Raises:
            RequestError: `invalid_request` if its `user` is none.
        """
        if not self.is_by_user:
            return self.demands
        user = self.key.terms.user or _read_user(body)
        return self.demands + make_demands(_name_user(self.owner, user), self.user_limits)


def make_demands(subject: str, limits: Limits) -> list[Demand]:
    """One demand for each window that anything is limited in."""
    if limits.is_none:
        return []
    found = [Demand(subject, window, limits.get_most(window)) for window in WINDOWS]
    return [demand for demand in found if demand.most != (None, None, None)]


def is_priced(demand: Demand) -> bool:
    """Whether it limits tokens or money, which count by voucher."""
    return demand.most[1] is not None or demand.most[2] is not None


def _read_user(body: bytes) -> str:
    try:
        user = _decode_user(body).user or ""
    except msgspec.ValidationError:
        raise RequestError("invalid_request", "user must be a text", param="user") from None
    except msgspec.DecodeError:  # a form, which has no such field
        return ""
    if len(user) > USER_CHARS_MAX:
        raise RequestError(
            "invalid_request",
            f"user has {len(user)} characters, at most {USER_CHARS_MAX}",
            param="user",
        )
    return user


def _name_user(owner: str, user: str) -> str:
    """Only a hash of an end user's name is kept; all who send none are one."""
    return f"user:{owner}:{hashlib.sha256(user.encode()).hexdigest()[:32]}"
