"""From rows to packed clusters in a working basis of the fixed effects."""
