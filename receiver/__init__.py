"""Everything about spans: they arrive (ingest), are kept (store) and are read (traces)."""
