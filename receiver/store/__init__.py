"""Spans are kept: one SQLite file, its writer, retention, and the resident columns read from it."""
