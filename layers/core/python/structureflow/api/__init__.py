"""What screens and programs ask for over HTTP; one app answers, in a function on AWS and in the viewer here."""
