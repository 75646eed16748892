"""Engines behind inference servers: MLServer hosts the runtime itself, Triton runs the graph between two Python models."""
