"""Documents of data sets on the Hugging Face hub, streamed row by row."""

from collections.abc import Iterator
from typing import Any

from replay_sweeps.config import SourceConfig
from replay_sweeps.data.sources.table_rows import TableReader
from replay_sweeps.errors import UserError, one_line
from replay_sweeps.models.hub import HUB_TIMEOUT


def documents(source: SourceConfig, reader: TableReader) -> Iterator[str]:
    """The documents of a data set, an empty one for an empty row. Raises UserError where it can't be read."""
    for number, row in enumerate(_stream_rows(source), 1):
        yield reader.document(row, f"{source.name}: {source.path}, row {number}") or ""


def _stream_rows(source: SourceConfig) -> Iterator[dict[str, Any]]:
    try:
        from datasets import load_dataset
        from huggingface_hub import HfApi

        assert source.path is not None
        # Without a network this fails at once; `load_dataset` would try for a minute.
        HfApi().dataset_info(source.path, revision=source.revision, timeout=HUB_TIMEOUT)
        for subset in (source.subset or "").split(","):
            yield from load_dataset(
                source.path,
                subset.strip() or None,
                data_dir=source.folder,
                split=source.split,
                revision=source.revision,
                streaming=True,
            )
    except Exception as error:  # whatever a remote data set may raise: the user mends the name or the network
        raise UserError(
            f"{source.name}: the hub data set {source.path!r} can't be read ({one_line(error)}); "
            "local files work without a network: choose `=local` with `.path=FOLDER`"
        ) from error
