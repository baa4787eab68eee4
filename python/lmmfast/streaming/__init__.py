"""Fits of data that are read in pieces: from files and streams to packed clusters."""
