"""One model on many processes: how they talk, and how the model is placed on them."""
