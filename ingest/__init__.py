"""Stage one: takes flow export off UDP, decodes it to columns, and produces the columns to Kafka."""
