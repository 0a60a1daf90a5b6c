"""Makes Hydra find the launcher of local workers. Every start of Hydra imports this: it stays light."""

from replay_sweeps.workers.local_launcher import LocalLauncher as _LocalLauncher


class LocalLauncher(_LocalLauncher):
    """The launcher of `replay_sweeps.workers.local_launcher`, in a module where Hydra looks for plugins."""
