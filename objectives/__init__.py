"""Objectives judge evidence: arrays in, measurements out. No torch below this line."""

if __name__ != "moo.objectives":
    raise ImportError(
        f"this package is moo.objectives, but was imported as {__name__!r}; import moo.objectives instead."
    )
