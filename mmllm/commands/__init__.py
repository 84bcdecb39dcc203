"""The commands of `mmllm`, one family a file. Each has `add(commands)`; `mmllm.cli` runs them."""
