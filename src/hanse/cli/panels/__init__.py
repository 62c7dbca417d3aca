"""What `hanse disputes` does with challenges and panels: the contract from the command line.

sealed   votes and answers that are sealed on chain, with their salts
court    the contract with a key of this home, and one challenge as it stands
showing  a challenge in words and as JSON
commands the commands
"""
