"""Hanse: an open market for AI compute. See docs/architecture.md for the house plan."""
