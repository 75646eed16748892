"""Rounds of training on few labels and many images without: the averaged weights label, the next round learns from both."""
