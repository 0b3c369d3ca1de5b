"""Search of a study: `run_study`, its estimate and its progress."""
