"""Recordings: files with spans that somebody else wrote, in the layouts that people really have."""
