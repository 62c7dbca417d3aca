"""What the commands of the provider's side do: provider start, provider status, settle.

broker           a broker from settings to its end, and what runs beside it
provider_status  what chain, broker and books say
idleness         why nobody asks, pure
settlements      settle now, by the running broker or without one
"""
