"""Both stages on a real Kafka while things are killed: afterwards every record that Kafka acknowledged is in the lake, once."""
