"""Multiruns: many runs of one command, planned, started on an engine, followed, and judged by one metric."""
