"""What a quantized run has that a float one lacks: a plan, a start, lessons, ranges, a monitor."""
