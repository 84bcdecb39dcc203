"""The tables and figures of the documents, drawn from results/*.json."""
