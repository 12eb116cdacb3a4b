"""Kinds of control planes: one class each."""
