"""Utility of a trial on held-out users."""
