"""The tables and figures of README.md and PAPER.md, drawn from results/*.json."""
