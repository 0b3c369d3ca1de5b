"""Objectives with noise, for releases under a policy."""
