"""Makes `python -m mmllm` the same as the `mmllm` command."""

import sys

from mmllm.cli import main

if __name__ == "__main__":
    sys.exit(main())
