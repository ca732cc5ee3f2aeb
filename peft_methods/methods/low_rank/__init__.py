"""Low-rank updates of weight matrices."""
