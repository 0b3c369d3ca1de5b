"""Synthetic order notes and identifiers with known positions."""
