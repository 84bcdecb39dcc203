"""Rewrites the tables of README.md and PAPER.md from experiments/results/*.json."""

import sys

from experiments.tables import documents

if __name__ == "__main__":
    sys.exit(documents.main())
