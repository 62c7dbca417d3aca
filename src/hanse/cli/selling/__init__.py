"""What the commands of the provider's side do: provider start, status, money and unbond, settle.

broker           a broker from settings to its end, and what runs beside it
services         what it sells: answers, and vectors, of one engine
selling_options  the options of whoever sells
provider_status  what chain, broker and books say
idleness         why nobody asks, pure
provider_money   where its units are, why, and what would free them
unbonding        the stake's way back
settlements      settle now, by the running broker or without one
"""
