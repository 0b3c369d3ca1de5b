"""Trial of a study: planned, trained, judged, saved."""
