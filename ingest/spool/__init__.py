"""The spool: where encoded messages wait on disk while Kafka does not take them.

:mod:`~ingest.spool.entry` is the form of a message on disk, :mod:`~ingest.spool.segment` a file of them,
:mod:`~ingest.spool.spoollog` the log of one topic, in order and with what was acknowledged, and
:mod:`~ingest.spool.store` a worker's directory with a log for each topic.
"""

from ingest.spool.entry import Entry
from ingest.spool.fault import Reason, SpoolFault
from ingest.spool.found import Found, Place
from ingest.spool.quota import Quota
from ingest.spool.spoollog import SpoolLog
from ingest.spool.store import Share, Spool

__all__ = ["Entry", "Found", "Place", "Quota", "Reason", "Share", "Spool", "SpoolFault", "SpoolLog"]
