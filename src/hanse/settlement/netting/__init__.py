"""Claiming on the chain what the provider's book says is owed, many users at once."""
