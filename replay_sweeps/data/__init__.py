"""From text to batches: read, clean, tokenise, store, and which rows each batch holds.

`prepare` is the entry and `pipeline` has the steps: documents are read (`sources`), repeats are dropped and validation
text is held out (`cleaning`, `near_duplicates`), text becomes tokens (`tokenizers`), conversations become rows
(`chat_template`, `packing`), and both are written (`encoder`, `token_store`). `text_keys` makes the key of each result,
`prepared_text` is what comes back, and `study_texts` holds it for all runs of a study. In training, `mixture` decides
which rows each batch has, and `token_rows` reads them.
"""
