"""Flow export of known content: what was sent is known to the record, so that what arrives can be compared.

`Traffic` makes datagrams and knows nothing of sockets; `Sender` sends them and knows nothing of flows. The decoders
are not used here, so one side's mistakes are not the other's.
"""
