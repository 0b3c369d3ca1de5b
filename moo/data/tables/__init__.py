"""A user's own table as records: columns, labels, users and the check before training."""
