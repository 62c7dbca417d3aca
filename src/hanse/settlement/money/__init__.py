"""Money in words: every unit of a user or a provider, why it is there and what would free it.

journal        the events that moved money, and which of them a balance came from
places         a place with its amount, its words and its transactions; alarms
stake          a stake in words, for both
user_money     a user's places, pure
provider_money a provider's places, pure
provider_reader  what those are read from: chain, book, outbox
waiting        since when a provider's receipts wait for their settlement, from its book

`hanse.sdk.money` reads the user's side, `hanse.provider` and the command line the provider's.

Source: docs/decisions/0017-money-in-words.md.
"""
