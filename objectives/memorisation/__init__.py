"""Memorisation of planted secrets by a text generator."""
