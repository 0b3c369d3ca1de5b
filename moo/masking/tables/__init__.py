"""Tables masked record by record, in CSV, JSON Lines and Parquet."""
