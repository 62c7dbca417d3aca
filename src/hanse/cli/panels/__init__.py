"""What `hanse disputes` does with challenges and panels; the work itself is `hanse.auditor.panels`.

commands  the commands
opening   the contract, opened with a key of this home
accusing  a challenge brought: its file read, the case shown
judging   votes and lots, and what stands afterwards
showing   a challenge in words and as JSON
"""
