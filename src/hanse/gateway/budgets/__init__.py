"""What a key, an end user and the whole gateway may spend, and what happens at a limit."""
