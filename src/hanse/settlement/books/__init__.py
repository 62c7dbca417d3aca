"""Both sides' durable books: receipts at the provider, vouchers at the user."""
