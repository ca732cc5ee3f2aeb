"""From a data source to clean, disjoint, tokenized splits."""
