"""Languages of what people read."""
