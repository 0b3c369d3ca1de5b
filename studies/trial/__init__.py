"""One trial: planned, trained, judged, saved."""
