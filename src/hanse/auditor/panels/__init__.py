"""Challenges at the Disputes contract, as challengers and auditors of panels work with them.

court     the contract at one block, and who acts; one challenge as it stands
accusing  a challenge brought, its sealed answer kept beforehand
steps     what takes a challenge on, and the vote that a key sealed
sealed    votes and answers that are sealed on chain, with their salts

Begin with `court`. Source: docs/decisions/0032-disputes-by-panel.md.
"""
