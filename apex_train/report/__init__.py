"""What a run measured: ``report.json`` and ``report.md`` with curves and pictures, written when a training ends."""
