"""What training, rounding and each part of the model are worth."""
