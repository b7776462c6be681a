"""What both stages need: the record and its codec, settings, Kafka, metrics, logs, probes and errors."""
