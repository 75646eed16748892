"""Images larger than the engine: cut into windows, one budget over all of them, what they found joined across the seams."""
