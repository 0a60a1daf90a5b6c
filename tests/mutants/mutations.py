"""Mutations: a promise of the code broken by hand, and the tests that must notice it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One change of one file."""

    promise: str  # what no longer holds, as a line of the table says it
    file: str
    old: str  # stands in the file exactly once
    new: str
    tests: tuple[str, ...]  # of which one must fail


MUTATIONS = (
    Mutation(
        "a file's content is on the disk before its name is",
        "replay_sweeps/files.py",
        "            file.flush()\n            os.fsync(file.fileno())\n        try:",
        "            file.flush()\n        try:",
        ("tests/test_files.py",),
    ),
    Mutation(
        "the files of a folder are on the disk before its name is",
        "replay_sweeps/files.py",
        '                with path.open("rb") as file:\n                    os.fsync(file.fileno())',
        "                pass",
        ("tests/test_files.py",),
    ),
    Mutation(
        "a new name is on the disk before it is relied on",
        "replay_sweeps/files.py",
        "        temporary.unlink(missing_ok=True)\n    sync_folder(path.parent)",
        "        temporary.unlink(missing_ok=True)",
        ("tests/test_files.py",),
    ),
    Mutation(
        "a record is read only if it matches its checksum",
        "replay_sweeps/files.py",
        "    if not is_sound:",
        "    if False:",
        ("tests/test_files.py", "tests/store/test_states.py"),
    ),
    Mutation(
        "a state is opened only if its files match their checksums",
        "replay_sweeps/store/states.py",
        "if file_checksum(folder / name, False) != checksum]",
        "if not (folder / name).is_file()]",
        ("tests/store/test_states.py",),
    ),
    Mutation(
        "settings are chosen on one half and reported on the other",
        "replay_sweeps/tree/planned_run.py",
        '        "target_loss": target.report,\n        "target_loss_selection": target.selection,',
        '        "target_loss": target.selection,\n        "target_loss_selection": target.report,',
        ("tests/tree/test_planned_run.py",),
    ),
    Mutation(
        "the subset seed is part of a state's key",
        "replay_sweeps/schedule/behaviour.py",
        '"subset_seed": mix.target.subset_seed,',
        '"subset_seed": 0,',
        ("tests/schedule/test_behaviour.py",),
    ),
    Mutation(
        "the order seed is part of a state's key",
        "replay_sweeps/schedule/behaviour.py",
        '"order_seed": mix.target.order_seed,',
        '"order_seed": 0,',
        ("tests/schedule/test_behaviour.py",),
    ),
    Mutation(
        "the order seed decides the order of target rows",
        "replay_sweeps/data/mixture.py",
        "self.order.rows, EPOCH, self.order.order_seed)",
        "self.order.rows, EPOCH, 0)",
        ("tests/schedule/test_data_schedule.py",),
    ),
    Mutation(
        "the subset seed decides which target rows are used",
        "replay_sweeps/data/mixture.py",
        "SUBSET, self.order.subset_seed)",
        "SUBSET, 0)",
        ("tests/schedule/test_data_schedule.py",),
    ),
    Mutation(
        "a row counts by its learned tokens",
        "replay_sweeps/training/batches.py",
        "(learned * (factor / learned.sum()))",
        "(np.ones(len(learned)) * (factor / len(learned)))",
        ("tests/training/test_batches.py",),
    ),
    Mutation(
        "a heartbeat keeps a lease",
        "replay_sweeps/store/leases.py",
        "        if before != (beat, owner):",
        "        if before is None:",
        ("tests/store/test_leases.py",),
    ),
    Mutation(
        "a worker may be silent for a minute",
        "replay_sweeps/store/leases.py",
        "GRACE_PERIOD = 60.0",
        "GRACE_PERIOD = 30.0",
        ("tests/store/test_leases.py",),
    ),
    Mutation(
        "a process id that was given again is another process",
        "replay_sweeps/store/leases.py",
        "born is None or bool(born and self.born and born != self.born)",
        "born is None",
        ("tests/store/test_leases.py",),
    ),
    Mutation(
        "one lost worker counts as one",
        "replay_sweeps/store/leases.py",
        "lost_workers=previous_owner.lost_workers + 1 if",
        "lost_workers=previous_owner.lost_workers + 2 if",
        ("tests/store/test_leases.py",),
    ),
    Mutation(
        "a path is taken up once more after its worker was lost",
        "replay_sweeps/workers/worker.py",
        "lease.owner.lost_workers > 1",
        "lease.owner.lost_workers > 0",
        ("tests/workers/test_worker.py",),
    ),
    Mutation(
        "waypoints stay under keep_states=none until no branch needs them",
        "replay_sweeps/store/retention.py",
        "or kept_for_later or on_the_way or",
        "or kept_for_later or",
        ("tests/store/test_retention.py",),
    ),
    Mutation(
        "a study leaves the states that another study of the store keeps",
        "replay_sweeps/store/retention.py",
        "or state.path in (kept_for_others or ())):",
        "):",
        ("tests/store/test_shared_store.py",),
    ),
    Mutation(
        "a branch's first state stays until nothing is missing of the branch",
        "replay_sweeps/store/retention.py",
        "waited_for = step in unfinished or",
        "waited_for =",
        ("tests/store/test_retention.py", "tests/workers/test_worker.py"),
    ),
    Mutation(
        "a state is there before the record that says so",
        "replay_sweeps/store/states.py",
        "        mark_store(self.folder)\n        if not self._is_kept(state, resumable):",
        "        mark_store(self.folder)\n"
        '        write_record(self._record_file(state), {"state": state.path, **vars(record)})\n'
        "        if not self._is_kept(state, resumable):",
        ("tests/store/test_kill.py::test_a_run_that_is_done_has_its_weights_wherever_the_worker_was_killed",),
    ),
    Mutation(
        "garbage collection drops nothing of an unfinished study",
        "replay_sweeps/store/gc.py",
        'whole = {name.partition("/")[0] for study in studies if not study.complete for name in study.states}',
        "whole: set[str] = set()",
        ("tests/store/test_gc.py", "tests/store/test_gc_safety.py"),
    ),
    Mutation(
        "garbage collection drops nothing behind a record that it cannot read",
        "replay_sweeps/store/gc.py",
        '            whole.add(state.partition("/")[0])',
        "            pass",
        ("tests/store/test_gc_safety.py",),
    ),
    Mutation(
        "a study whose record cannot be read stops garbage collection",
        "replay_sweeps/store/study_records.py",
        "    if problems:\n        raise CannotGoOn(*problems)\n",
        "",
        ("tests/store/test_gc_safety.py",),
    ),
    Mutation(
        "no link leads what is read or written out of its folder",
        "replay_sweeps/files.py",
        "        lies_inside = path.resolve().is_relative_to(folder.resolve())",
        "        lies_inside = True",
        ("tests/test_files.py",),
    ),
)
