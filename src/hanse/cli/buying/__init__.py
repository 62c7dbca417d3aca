"""What the commands of the user's side do: chat, offers, account, money, receipts, gateway.

wallet           opens a user's money and books, with no more keys than needed
moves            deposit, fund, refund, withdraw, each until it is confirmed
conversation     one answer or many, and what they cost
market           every verified offer with its health, without a key
gateway_process  a gateway from settings to its end
"""
