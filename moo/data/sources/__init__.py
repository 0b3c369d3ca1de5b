"""Data sets that moo fetches by hash from pinned package archives."""
