"""Spans arrive: the gRPC server, the decoder and the synthetic cluster of `demo`."""
