"""
Write deploy/postgresql/small.conf, medium.conf and large.conf: PostgreSQL's settings for a machine's memory and processors.

The arithmetic stands here, and beside each number in the files. Run by `python -m deploy.write_postgresql_conf`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "postgresql"


@dataclass(frozen=True, kw_only=True)
class Size:
    """
    What a database's container may use.

    :param memory: In MB; the container's limit, its shared memory included.
    :param cpus: Processors.
    :param connections: How many clients at once; a process of the service keeps up to 32, a pooler 25.
    """

    memory: int
    cpus: int
    connections: int

    @property
    def maintenance_work_mem(self) -> int:
        """An eighth, at most 8 GB, in MB: an HNSW graph is built several times faster where it fits in here."""
        return min(self.memory // 8, 8192)

    @property
    def shared_memory(self) -> int:
        """`shm_size`, in MB: a parallel build keeps maintenance_work_mem there, and parallel queries need some, too."""
        return self.maintenance_work_mem * 3 // 2


SIZES = {
    "small": Size(memory=4096, cpus=2, connections=100),
    "medium": Size(memory=16384, cpus=4, connections=200),
    "large": Size(memory=65536, cpus=16, connections=300),
}


def settings(size: Size) -> dict[str, tuple[str, str]]:
    """Each setting with its value and where that comes from."""
    buffers = size.memory // 4
    return {
        "listen_addresses": ("'*'", "the container's network; no port of it is published"),
        "max_connections": (str(size.connections), "each costs about 10 MB once it has worked"),
        "shared_buffers": (f"{buffers}MB", "a quarter of the memory; the kernel's cache holds the rest of the data"),
        "effective_cache_size": (f"{size.memory * 3 // 4}MB", "three quarters: shared_buffers and the kernel's cache"),
        "maintenance_work_mem": (f"{size.maintenance_work_mem}MB", "an eighth; one index build at a time"),
        "autovacuum_work_mem": (f"{size.memory // 64}MB", "a 64th, for each of three workers; else as above"),
        "work_mem": (
            f"{(size.memory - buffers) // (size.connections * 3)}MB",
            "what shared_buffers leaves / connections / 3 sorts at once",
        ),
        "max_worker_processes": (str(size.cpus + 8), "processors, and what PostgreSQL starts for itself"),
        "max_parallel_workers": (str(size.cpus), "processors"),
        "max_parallel_workers_per_gather": (str(min(size.cpus // 2, 4)), "half of them for one query, at most 4"),
        "max_parallel_maintenance_workers": (str(min(size.cpus - 1, 7)), "an index build leaves one to the queries"),
        "max_wal_size": (f"{max(4096, size.memory // 4)}MB", "fewer checkpoints while an index is built"),
        "min_wal_size": ("1GB", "files that are used again"),
        "checkpoint_timeout": ("15min", "likewise; a recovery after a crash replays at most these"),
        "wal_compression": ("on", "full pages after a checkpoint are most of the log"),
        "random_page_cost": ("1.1", "solid-state disks"),
        "jit": ("off", "compiling costs more than a search takes"),
        "track_io_timing": ("on", "what a query waited for; 20 ns each on current processors"),
        "shared_preload_libraries": ("'pg_stat_statements'", "slow statements; CREATE EXTENSION makes the view"),
        "idle_in_transaction_session_timeout": ("1h", "a client that hangs keeps no rows from vacuum for ever"),
        "tcp_keepalives_idle": ("60", "seconds; a client that vanished keeps no connection"),
        "log_min_duration_statement": ("500", "milliseconds; statements, never their values:"),
        "log_parameter_max_length": ("0", "questions and documents are values"),
        "log_parameter_max_length_on_error": ("0", "likewise"),
        "log_lock_waits": ("on", "who waits more than a second for a lock"),
        "log_autovacuum_min_duration": ("10s", "vacuums that take long"),
        "log_temp_files": ("10MB", "sorts that did not fit in work_mem"),
        "log_timezone": ("'UTC'", "as the service's log"),
        "timezone": ("'UTC'", "likewise"),
    }


def text(name: str, size: Size) -> str:
    """A configuration file."""
    lines = [
        f"# PostgreSQL in a container of {size.memory // 1024} GB and {size.cpus} processors, for deploy/compose.production.yml:",
        f"# DATABASE_SIZE={name} DATABASE_MEMORY={size.memory // 1024}g DATABASE_CPUS={size.cpus} DATABASE_SHM={size.shared_memory}m",
        "# Written by deploy/write_postgresql_conf.py, where the arithmetic is.",
        "",
    ]
    given = {key: f"{key} = {value}" for key, (value, _) in settings(size).items()}
    width = max(map(len, given.values()))
    lines += [f"{given[key]:<{width}}  # {why}" for key, (_, why) in settings(size).items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name, size in SIZES.items():
        (FOLDER / f"{name}.conf").write_text(text(name, size), encoding="utf-8")
