"""Tables and texts that a user reads."""
