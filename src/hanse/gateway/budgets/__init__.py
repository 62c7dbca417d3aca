"""What a key, an end user and the whole gateway may spend, and what happens at a limit.

limits         requests, tokens and money in a minute and a day, and the exact rule
rows           what processes have taken, as it is stored
holds          what this process holds: reservations and refusals
ledger         reserving and settling, durable before it is relied on
purse          what one request may still spend, asked before each voucher
plans          which limits hold for a request
configuration  limits of the whole gateway, and ladders by name
admission      where all of it joins the paid path
quotes         prices, told before a request is made

Source: docs/decisions/0025-keys-and-budgets.md, docs/gateway/keys-and-budgets.md.
"""
