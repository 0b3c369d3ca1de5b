"""What private training costs: events as data, epsilon derived, secret keys, claims decided in one place."""
