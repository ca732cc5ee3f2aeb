"""From records to statements: comparison, statistics, regression check, recommendations."""
