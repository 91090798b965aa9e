"""The frame of the integration tests: a private mail stack and clients for it."""
