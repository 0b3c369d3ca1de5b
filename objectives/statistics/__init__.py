"""Statistics shared by the objectives: clustered errors, class alignment."""
