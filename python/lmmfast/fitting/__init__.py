"""From a design to a fitted model."""
