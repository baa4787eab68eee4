"""Inference on the parameters, one method per file."""
