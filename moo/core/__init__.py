"""Ground of every layer: errors, checks, atomic files, data that travels between layers."""
