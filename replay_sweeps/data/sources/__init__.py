"""The kinds of sources that documents are read from: hub data sets, local files, installed packages, a model."""
