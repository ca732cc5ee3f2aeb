"""Tables of results that were made elsewhere."""
