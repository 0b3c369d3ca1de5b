"""A study prepared: legal gates, partition, masked texts, features."""
