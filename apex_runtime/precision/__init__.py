"""Precision lives in the graph: passes that rewrite an exported model, and what they may not touch."""
