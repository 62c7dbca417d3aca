"""`hanse models rebase`, `attack` and `trace`: providers' own copies."""
