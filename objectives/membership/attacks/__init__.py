"""Membership inference attacks: scores in, scores out."""
