"""A laptop's Kafka, and `make run`: both stages with generated flows."""
