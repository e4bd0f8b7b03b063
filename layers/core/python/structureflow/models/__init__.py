"""Data at the boundaries: the job request (`job`), what the steps hand each other and leave (`results`)."""
