"""Where text comes from: files, the hub, installed packages, a model itself."""
