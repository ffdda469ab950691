"""The folder of a comparison: settings.json, and runs/KEY.json for each run that has ended well.

runs/KEY.json holds the settings of the run, its wall_seconds and the report of gradfs-train; runs/KEY.failed.json
instead holds the error of one that failed, which is tried again by the next start.
"""
import dataclasses
import fcntl
import json
import os
import pathlib


class Refused(Exception):
    """What the user has to change, in one line."""


def write_text(path, text):
    """Old or new, never half."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path):
    """None if there is no such file, or it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


class Store:
    """settings: a dict that must be the same whenever this folder is used. Raises Refused."""

    def __init__(self, folder, settings):
        self.folder = pathlib.Path(folder).resolve()
        self.runs = self.folder / "runs"
        self.logs = self.folder / "logs"
        for made in (self.runs, self.logs):
            made.mkdir(parents=True, exist_ok=True)
        self._records = {}  # those that were read or written: only this process writes them
        self._lock = open(self.folder / "lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"{self.folder} is in use by another tools/compare: wait for it") from None
        path = self.folder / "settings.json"
        known = read_json(path)
        if known is None:
            write_json(path, settings)
        elif known != settings:
            was = ", ".join(f"{name} {value}" for name, value in known.items())
            raise Refused(f"{self.folder} holds a comparison with {was}: give the same options or another --out")

    def close(self):
        """Another process may use the folder."""
        self._lock.close()

    def _path(self, run):
        return self.runs / f"{run.key}.json"

    def _failed_path(self, run):
        return self.runs / f"{run.key}.failed.json"

    def find(self, run):
        """The record of a run that ended well with exactly these settings, or None."""
        record = self._records.get(run.key) or read_json(self._path(run))
        if not record or record.get("run") != dataclasses.asdict(run):
            return None
        self._records[run.key] = record
        return record

    def report(self, run):
        record = self.find(run)
        return record and record["report"]

    def error(self, run):
        """Why a run failed, or None."""
        record = read_json(self._failed_path(run))
        return record and record["error"]

    def save(self, run, wall_s, report):
        self._records[run.key] = {"run": dataclasses.asdict(run), "wall_seconds": round(wall_s, 3), "report": report}
        write_json(self._path(run), self._records[run.key])
        self._failed_path(run).unlink(missing_ok=True)

    def save_error(self, run, error):
        write_json(self._failed_path(run), {"run": dataclasses.asdict(run), "error": error})
