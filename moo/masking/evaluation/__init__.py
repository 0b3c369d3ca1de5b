"""Masking measured against mentions whose positions are known."""
