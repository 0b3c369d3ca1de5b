"""Sentences around a mention, and values, for notes in free wording: data files alone."""
