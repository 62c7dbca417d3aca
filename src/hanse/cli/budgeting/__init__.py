"""What the commands of API keys and budgets do.

options  limits and scopes as options of a command
keys     `hanse gateway keys`
limits   `hanse gateway limits` and `hanse gateway ladders`
quote    `hanse quote`
upkeep   sub-accounts that a gateway keeps by itself, and `hanse gateway fund`
"""
