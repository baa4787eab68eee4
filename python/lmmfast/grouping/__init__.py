"""Grouping factors: which row belongs to which cluster, and how factors nest."""
