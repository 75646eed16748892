"""Is the fast one still the same model? Two executable forms compared tensor by tensor and decision by decision."""
