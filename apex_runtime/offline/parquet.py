"""Tables: the lines of results.jsonl as Parquet, and the paths that a Parquet file lists."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from apex_runtime.errors import ApexError, MissingPackageError, UsageError

COLUMNS = ("path", "url")  # of a source, the first that is there
MAX_ROWS = 100_000_000


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingPackageError(f"Parquet needs pyarrow ({error}).", 'Install the extra ray: pip install ".[ray]".') from error
    return pyarrow


def parquet_bytes(lines: bytes) -> bytes:
    """A row per image of results.jsonl, with its annotations as a list; what an image has not is null. Raises ValueError."""
    pa = _pyarrow()
    rows = [_row(json.loads(line)) for line in lines.splitlines()]
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows, _schema(pa)), sink, compression="zstd")
    return sink.getvalue()


def _row(record: dict[str, Any]) -> dict[str, Any]:
    name = record["file_name"].encode("utf-8", "backslashreplace").decode()
    return record | {"file_name": name, "asked": record["budget"]["asked"], "spent": record["budget"]["spent"]}


def _schema(pa: ModuleType) -> Any:
    """The same for every shard, also for one without an object: readers put the files of a folder together."""
    box, number = pa.list_(pa.float64()), pa.float64()
    mask = pa.struct([("size", pa.list_(pa.int64())), ("counts", pa.string())])
    annotation = pa.struct(
        [
            ("id", pa.int64()),
            ("category_id", pa.int64()),
            ("bbox", box),
            ("score", number),
            ("area", number),
            ("segmentation", mask),
        ]
    )
    tile = pa.struct([("id", pa.int64()), ("level", pa.int64()), ("window", pa.int64()), ("bbox", box)])
    times = pa.struct([(name, number) for name in ("decode", "graph", "post", "total")])
    columns = [("id", pa.int64()), ("file_name", pa.string()), ("width", pa.int64()), ("height", pa.int64())]
    columns += [("asked", pa.string()), ("spent", pa.int64()), ("milliseconds", times), ("tiles", pa.list_(tile))]
    return pa.schema([*columns, ("annotations", pa.list_(annotation))])


def listed_paths(source: str) -> Iterator[str]:
    """The column ``path`` (or ``url``) of a Parquet file, which may itself be a URL. Raises UsageError, MissingPackageError."""
    from apex_runtime.offline.fetch import fsspec_module

    pa = _pyarrow()
    try:
        with fsspec_module().open(source, "rb") as stream:
            table = pa.parquet.ParquetFile(stream)
            column = _column(source, table)
            for batch in table.iter_batches(columns=[column]):
                yield from _texts(source, column, batch.column(0).to_pylist())
    except ApexError:
        raise
    except ImportError as error:
        raise MissingPackageError(f"{source}: {error}.", "Install that package.", path=source) from error
    except Exception as error:  # each store has errors of its own, and a text may not be UTF-8
        raise UsageError(f"{source}: not a Parquet file that can be read ({error}).", _REMEDY, path=source) from error


_REMEDY = f"Give a Parquet file with a column of texts called {' or '.join(COLUMNS)}."


def _column(source: str, table: Any) -> str:
    names = table.schema_arrow.names
    column = next((name for name in COLUMNS if name in names), None)
    if column is None:
        more = " Images inside of the file are not read." if {"image", "bytes"} & set(names) else ""
        raise UsageError(f"{source}: its columns are {', '.join(names[:8])}.{more}", _REMEDY, path=source)
    if table.metadata.num_rows > MAX_ROWS:
        raise UsageError(f"{source}: more than {MAX_ROWS:,} rows.", "Cut it into several.", path=source)
    return column


def _texts(source: str, column: str, values: list[Any]) -> list[str]:
    if not all(isinstance(value, str) and value and "\0" not in value for value in values):
        raise UsageError(f"{source}: a value in the column {column} is no path.", _REMEDY, path=source)
    return values
