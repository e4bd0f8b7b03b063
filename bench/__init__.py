"""Measurements: ``python -m bench [names]`` runs ``bench.<name>.rows(context)`` and writes the results."""
