"""The healthy world of the fault tests, made once."""

import pytest

from replay_sweeps.store.command import main as store_command
from tests.faults.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The healthy world, trained once."""
    from replay_sweeps import main as entry
    from replay_sweeps.store import leases

    world = World(tmp_path_factory.mktemp("faults"))
    world.write_texts()
    acquired: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        acquire = leases.Leases.acquire
        patch.setattr(leases.Leases, "acquire", lambda self, name: acquired.append(name) or acquire(self, name))
        assert entry.main(world.command()) == 0
    assert store_command(["gc", "--now", "--store", str(world.store)]) == 0  # drops what measuring left
    world.lease = next(name for name in acquired if not name.startswith(leases.WORKER_PREFIX))
    world.adopt()
    return world
