"""Who does it: the sweeper, the workers that it starts, and the processes of each worker."""
