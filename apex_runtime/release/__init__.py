"""The release checklist: rows that are computed from files of a checkout, never typed by hand."""
