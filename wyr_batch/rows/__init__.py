"""From masks to Parquet."""
