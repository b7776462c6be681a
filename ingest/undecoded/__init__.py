"""Data sets that wait for their template in Kafka, in ``flows.undecoded``: the promise **patient** beyond one process.

A worker whose memory is full, or that stops, hands over what waits there (:mod:`~ingest.undecoded.handover`). One worker
of each instance is a member of the group that reads it again and again (:mod:`~ingest.undecoded.group`), until it can be
decoded (:mod:`~ingest.undecoded.chunk`) or an hour is over. What a message looks like is in
:mod:`~ingest.undecoded.message`.
"""
