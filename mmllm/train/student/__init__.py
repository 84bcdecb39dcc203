"""What a quantized run has beside a float one: plan, start, distillation, ranges and monitor."""
