"""Results of a study: front, recommendation, reports."""
