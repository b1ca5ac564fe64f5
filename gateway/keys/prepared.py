"""Statements of the schema run without SQLAlchemy's machinery: compiled once, then straight to the driver.

For the three transactions that every request passes through; they cost a third of what they cost otherwise
(`python -m benchmarks keys_store`). Knows nothing of keys.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, Executable

Run = Callable[[Executable, Mapping[str, Any]], Any]


class Prepared:
    """The statements of one engine. A statement always comes with the same names of parameters.

    With `one_thread`, the caller promises to come from one thread only: then all run on one connection that is kept,
    since taking one from the pool and giving it back costs as much as a statement.
    """

    def __init__(self, engine: Engine, *, one_thread: bool = False) -> None:
        self._engine = engine
        self._kept = engine.raw_connection() if one_thread else None
        self._sqlite = engine.dialect.name == "sqlite"
        self._compiled: dict[Executable, tuple[str, list[str] | None, dict[str, Any]]] = {}

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Run]:
        """A function that runs a statement and returns the driver's cursor; all in one transaction.

        Committed at the end, rolled back on an exception, which is the driver's own.
        """
        connection = self._kept or self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            if self._sqlite and write:
                cursor.execute("BEGIN IMMEDIATE")

            def run(statement: Executable, parameters: Mapping[str, Any]) -> Any:
                sql, order, constants = self._of(statement, parameters)
                if order is None:
                    cursor.execute(sql, {**constants, **parameters})
                else:
                    cursor.execute(sql, [parameters[name] if name in parameters else constants[name] for name in order])
                return cursor

            try:
                yield run
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
        finally:
            if connection is not self._kept:
                connection.close()

    def close(self) -> None:
        """Give the connection back that was kept."""
        if self._kept is not None:
            self._kept.close()

    def _of(self, statement: Executable, parameters: Mapping[str, Any]) -> tuple[str, list[str] | None, dict[str, Any]]:
        known = self._compiled.get(statement)
        if known is None:
            made: Any = statement.compile(dialect=self._engine.dialect, column_keys=list(parameters))  # type: ignore[attr-defined]
            order = list(made.positiontup) if made.positional else None
            constants = {name: value for name, value in made.params.items() if name not in parameters}
            known = self._compiled[statement] = (str(made), order, constants)
        return known
