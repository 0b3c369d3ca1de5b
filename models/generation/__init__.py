"""Causal language models that write."""
