"""From text to batches: read, clean, tokenise, store, and which rows each batch holds."""
