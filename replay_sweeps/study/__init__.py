"""What is asked: a command line becomes the checked runs of a study."""
