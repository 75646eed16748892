"""Other projects' detectors and ours, trained on the same data for as many minutes of one processor."""
