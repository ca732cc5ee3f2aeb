"""The store as the driver of a session writes it: records of runs without a result."""

from __future__ import annotations

from functools import cached_property

from peft_methods.runs.record import Record
from peft_methods.runs.store import RECORD, Store
from peft_methods.utils.errors import PeftMethodsError


class StoreOfFailures(Store):
    """A store whose folder is listed once for earlier failed attempts, not for every record."""

    def write_or_warn(self, record: Record) -> list[str]:
        """Write a record. If that fails, return a warning."""
        try:
            self.write(record)
        except PeftMethodsError as error:
            return [str(error)]
        return []

    def _delete_failures(self, record: Record) -> None:
        """Delete earlier failed records of this run."""
        key = record.fingerprint.partition("-")[0]
        for name in self._failures.pop(key, set()) - {record.fingerprint}:
            (self.folder / f"{name}{RECORD}").unlink(missing_ok=True)
        self._failures[key] = {record.fingerprint}

    @cached_property
    def _failures(self) -> dict[str, set[str]]:
        """The names of failed records by the key of their run, which they start with."""
        found: dict[str, set[str]] = {}
        for path in self.folder.glob(f"*-*{RECORD}"):
            found.setdefault(path.stem.partition("-")[0], set()).add(path.stem)
        return found
