"""Benchmarks: each regenerates its figures with one command."""
