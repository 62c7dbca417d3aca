"""Staying up: what becomes of a request when a provider is late, breaks, lies or is not there.

steady      a `MarketClient` over another one that tries again, goes on elsewhere and falls back
answer      one answer from as many providers as it takes
delivered   what an application has received of a stream, read once that is needed
continuing  asking another provider for the rest, of each choice, and joining it
patience    noticing that nothing comes any more
waiting     asking the market again for a moment
hedging     asking a second provider when the first token is late
fallback    a local engine or a canned answer when the market has nothing
line        the bounded queue with its three classes
wishes      the class and the deadline that an application asks for
reloading   reading the settings anew
figures     counts of all of it

Source: docs/decisions/0024-staying-up.md, docs/gateway/staying-up.md.
"""
