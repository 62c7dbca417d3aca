"""`hanse attest`: verify what a broker's machine says of itself, and write a policy for it."""
