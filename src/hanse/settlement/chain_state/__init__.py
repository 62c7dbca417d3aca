"""What the chain's index and outbox keep in the database, and what Escrow's events mean."""
