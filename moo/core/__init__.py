"""Ground of every layer: errors, checks, atomic files, and the data that travels between layers."""
