"""Apex-X runtime: detection and instance segmentation under a compute budget. No torch in here."""
