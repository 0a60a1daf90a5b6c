"""What a state is worth: the loss on fixed validation rows."""
