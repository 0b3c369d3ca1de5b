"""Audits of a DP claim by canaries."""
