"""Models produce evidence: base models, the shared trunk, the bank of shadows, DP-SGD."""

if __name__ != "moo.models":
    raise ImportError(f"this package is moo.models, but was imported as {__name__!r}; import moo.models instead.")
