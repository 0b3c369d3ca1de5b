"""Cost of private training: events, derived epsilon, secret keys, claims, ledger."""
