"""The steps of a job, one module per function: each takes a typed event and `Services`, and leaves objects."""
