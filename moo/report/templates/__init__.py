"""Layout and style of the report."""
