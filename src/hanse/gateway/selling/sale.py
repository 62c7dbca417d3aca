"""What is known of one paid request while it is at work.

Each step of `hanse.gateway.selling.path` adds to it, and later steps read it. The application's own
bytes are never changed in place: a step that asks for something else (a smaller model, the rest of
an answer) sets `body` to bytes of the gateway's own making, which then are a request of their own.
"""

import msgspec

from hanse.gateway.bodies import Body
from hanse.gateway.budgets.purse import LimitError
from hanse.gateway.client import MarketAnswer
from hanse.gateway.dialects.dialect import Translation
from hanse.gateway.exchange import Exchange
from hanse.gateway.keys import ApiKey
from hanse.gateway.operations import Operation
from hanse.gateway.resilience.answer import SteadyAnswer
from hanse.market import Needs

ANY = Needs()


class Sale(msgspec.Struct):
    """One paid request.

    Attributes:
        exchange: the application's side of it.
        operation: what is bought: the path asked for, or a chat completion for another dialect.
        key: who asks.
        body: what is bought; the application's bytes unless a step made others.
        fields: what the gateway has read of the application's body.
        needs: what narrows the choice of provider.
        translation: how a chat completion is told in the dialect asked in; None if it is none.
        answers: what was bought for it so far.
        fees: base units of each verified receipt, in the order of its parts.
        refused: why its count of requests is over a limit; None while it is not.
        own: an answer of the gateway's own, which is sent instead of one that is bought.
    """

    exchange: Exchange
    operation: Operation
    key: ApiKey
    body: bytes
    fields: Body
    needs: Needs = ANY
    translation: Translation | None = None
    answers: list[SteadyAnswer] = []
    fees: list[int] = []
    refused: LimitError | None = None
    own: MarketAnswer | None = None
