"""Evidence annex for a privacy impact assessment."""
