"""Proofs that take minutes, run by hand, ``python -m bench.proofs.NAME``; it prints JSON, and ends with 1 if it failed."""
