"""Removal of duplicates: the same record again, and the same flow from several exporters.

Nothing here reads a clock, Kafka, a metric or a log. What is remembered is dated by append time, which is in the log, so
that whoever reads a partition again, however its messages come, finds the same duplicates. docs/dedup.md says which rule
is for whom, and what sampling does to it.
"""
