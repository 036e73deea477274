"""Words: shapes, sizes, configurations, errors, noise keys, the clock."""
