"""Preparation of a study: legal gates, partition, masked texts, features."""
