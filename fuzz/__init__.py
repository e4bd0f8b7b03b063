"""Coverage-guided fuzzing of what reads bytes from outside: ``make fuzz``, or ``python -m fuzz --help``."""
