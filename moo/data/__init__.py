"""Data with a known origin: loaded, split by unit of privacy, measured against the law."""
