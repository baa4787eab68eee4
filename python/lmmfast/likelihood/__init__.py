"""The likelihood of a model away from its maximum."""
