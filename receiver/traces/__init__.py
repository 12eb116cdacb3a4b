"""Spans are read: the model of a trace, its tree, and what a span means in Kubernetes."""
