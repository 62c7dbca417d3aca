"""The commands of `hanse models`, and what they share."""
