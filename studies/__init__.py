"""Studies arrange data, models and objectives, and run the search."""

if __name__ != "moo.studies":
    raise ImportError(f"this package is moo.studies, but was imported as {__name__!r}; import moo.studies instead.")
