"""Word lists of the masker, one term a line; written for moo."""
