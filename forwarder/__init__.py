"""Stage two: consumes the records from Kafka, cuts them into batches, and delivers the batches to its sinks."""
