"""pg_upgrade on the embedded package's programs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from database.embedded import EmbeddedServer


def run_pg_upgrade(old: EmbeddedServer, new: EmbeddedServer, folder: Path, *, link: bool) -> None:
    """
    Upgrade an embedded server's data as docs/moving.md says: a new cluster beside the old one, a check, then the upgrade.

    :param old: The server as it was, stopped.
    :param new: One whose home is not there yet.
    :param folder: Where pg_upgrade leaves its logs.
    :param link: Whether files are linked and not copied; the old data is then never to be started again.
    """
    binaries = {server.major: server._binaries for server in (old, new)}
    new.home.mkdir(mode=0o755)
    account = new._account
    user = {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    work = Path(tempfile.mkdtemp(dir=folder))
    for path in (work, new.home):
        if account is not None:
            os.chown(path, account.pw_uid, account.pw_gid)

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)),
            cwd=work,
            env={"LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
            **user,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    run(
        *(
            binaries[new.major] / "initdb",
            "-D",
            new.data,
            "--username",
            "postgres",
            "--auth",
            "trust",
            "--encoding",
            "UTF8",
        ),
        *("--locale", "C", "--no-data-checksums"),  # a cluster of 16 has none unless it was asked for
    )
    upgrade = [
        *(
            binaries[new.major] / "pg_upgrade",
            "-b",
            binaries[old.major],
            "-B",
            binaries[new.major],
            "-d",
            old.data,
            "-D",
            new.data,
        ),
        *("-U", "postgres", "--socketdir", work),
    ]
    assert "Clusters are compatible" in run(*upgrade, "--check")
    assert "Upgrade Complete" in run(*upgrade, *(["--link"] if link else []))
