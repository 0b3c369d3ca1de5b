"""Training shared by both engines: fit, checkpoints, loggers."""
