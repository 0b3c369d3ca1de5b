"""Attribute inference: the risk and the attack behind it."""
