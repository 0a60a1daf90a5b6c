"""From a command line to checked runs."""
