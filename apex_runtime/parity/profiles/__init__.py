"""Tolerance profiles of ``apex-rt parity``, as data."""
