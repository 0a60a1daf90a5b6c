"""What a finished or interrupted study leaves in its folder: tables, history, and what a report says of it."""

import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from replay_sweeps.config_builder import plain_values
from replay_sweeps.data.study_texts import StudyTexts
from replay_sweeps.files import write_atomically
from replay_sweeps.store.status import Ledger
from replay_sweeps.study.study import Study
from replay_sweeps.tree.layout import Layout

logger = logging.getLogger(__name__)


def write_results(study: "Study", texts: "StudyTexts", layout: "Layout", ledger: "Ledger") -> None:
    """The run table, its history, and what a report says of the study; then the mirror."""
    from replay_sweeps.results.run_table import read_run, row, write_tables
    from replay_sweeps.results.tracking import mirror_runs
    from replay_sweeps.store.status import why_failed

    ledger.look()
    reasons = why_failed(ledger)
    records = [read_run(run, ledger.store) for run in layout.runs]
    rows = [row(r, study.name, layout.vocab_sizes[r.run.run_id], reasons.get(r.run.run_id)) for r in records]
    write_tables(study.output, rows, records)
    conditions = [segment_record.numerics for record in records for segment_record in record.chain or ()]
    distinct = [dict(items) for items in dict.fromkeys(tuple(sorted(item.items())) for item in conditions)]
    write_atomically(study.output / "study.json", (json.dumps(about(study, texts, distinct), indent=1) + "\n").encode())
    mirror_runs(study.output, study.name, study.logger, rows, records)
    if len(distinct) > 1:
        logger.warning("this study mixes numerics, so that its states are not equal to the bit: %s", distinct)


def about(study: "Study", texts: "StudyTexts", conditions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a reader should know of a study: command, corpus, counts, versions, machine."""

    packages = ("replay-sweeps", "torch", "lightning", "transformers", "numpy", "hydra-core")
    first = study.runs[0]
    return {
        "name": study.name,
        "title": study.title,
        "command": study.command,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": {"system": platform.system(), "cores": os.cpu_count(), "numerics": list(conditions)},
        "sources": texts.summary(),
        "altered": list(study.altered),
        "budget": study.budget,
        "axes": list(study.axes),
        "settings": {
            name: plain_values(asdict(getattr(first, name))) for name in ("model", "optimizer", "trainer", "evaluation")
        },
    }
