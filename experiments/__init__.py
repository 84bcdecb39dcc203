"""Why: one file a table, a figure or a shipped artifact."""
