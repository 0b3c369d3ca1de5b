"""Privacy cost of a study's trainings: reserved, settled, bounded."""
