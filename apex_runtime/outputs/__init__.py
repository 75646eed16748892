"""What a run leaves beside results.json, when asked: YOLO text, mask pictures, GeoJSON, a table; all made of its records."""
