"""Proofs that take minutes: ``python -m bench.proofs.NAME`` prints JSON, and ends with 1 if it failed."""
