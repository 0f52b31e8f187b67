"""Tables: schemas, rows, Parquet."""
