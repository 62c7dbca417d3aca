"""Who lives in the market: components, and each kind of them.

components  what outlives a process, and the supervisor that starts the next
sellers     brokers
buyers      a user with the SDK, a gateway over it, the application that asks the gateway
recording   the recorder, and how both sides reach it
tracing     the store of traces, and who keeps some
"""
