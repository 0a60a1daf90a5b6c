"""The life of a study, its workers and their processes."""
