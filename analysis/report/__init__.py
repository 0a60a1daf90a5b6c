"""Words and pictures: the answer in plain language, the report, and its figures."""
