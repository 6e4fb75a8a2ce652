"""``searchr1 export``: stored runs as training records, in JSON Lines or in upstream's parquet columns."""
