"""Recognisers of personal data, one file a kind."""
