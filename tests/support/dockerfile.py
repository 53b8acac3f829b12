"""
A Dockerfile's steps without Docker: each stage is an overlay on this machine's own files, in which commands run by chroot.

What it shows: that the steps work, what they leave, and that the image's program runs on what they left. What it does not: the
base image, as Debian's programs and libraries are this machine's. Needs root and overlayfs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

RUN_AS_ROOT = "0:0"


@dataclass(frozen=True)
class Instruction:
    """`COPY a b`: its name, what follows, and the flags between."""

    name: str
    text: str
    flags: dict[str, str]


@dataclass
class Stage:
    """
    A stage as its steps left it.

    :param layers: Folders with what stages below it changed, the newest first; the base is below them all.
    :param upper: What it changed itself.
    :param copied: Folders of other stages, and where they are here; shown there, not copied.
    """

    layers: list[Path]
    upper: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = RUN_AS_ROOT
    copied: list[tuple[Stage, str, str]] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile, continued lines joined."""
    joined = re.sub(r"\\\n(\s*#.*\n)*", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    for line in filter(str.strip, joined.splitlines()):
        name, _, rest = line.strip().partition(" ")
        flags = {}
        while found := re.match(r"--([a-z-]+)=(\S+)\s+", rest := rest.strip()):
            flags[found[1]], rest = found[2], rest[found.end() :]
        yield Instruction(name.upper(), rest, flags)


def in_context(context: Path) -> set[str]:
    """The files that a build may read: all but those that .dockerignore keeps out; its last line that fits decides."""
    rules = [line for line in (context / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    patterns = [(rule.startswith("!"), _pattern(rule.removeprefix("!"))) for rule in rules]
    files = (path.relative_to(context) for path in context.rglob("*") if not path.is_dir())
    return {str(path) for path in files if _is_read(path, patterns)}


def _is_read(path: Path, patterns: list[tuple[bool, re.Pattern[str]]]) -> bool:
    names = [str(path), *map(str, path.parents)]
    fitting = [taken for taken, pattern in patterns if any(pattern.fullmatch(name) for name in names)]
    return not fitting or fitting[-1]


def _pattern(rule: str) -> re.Pattern[str]:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return re.compile("".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*)", rule)))


class Builder:
    """
    Builds a target of a Dockerfile.

    :param context: Folder of the build.
    :param folder: Where layers go; several GB.
    :param kept: Where stages that others are made from are kept between runs, as Docker keeps layers.
    :param arguments: Build arguments.
    """

    def __init__(self, context: Path, folder: Path, *, kept: Path, arguments: Mapping[str, str]) -> None:
        self.context = context
        self.readable = in_context(context)
        self.copied: set[str] = set()
        self._folder, self._kept, self._given = folder, kept, dict(arguments)
        self._stages: dict[str, Stage] = {}

    def build(self, dockerfile: Path, target: str) -> Stage:
        """Run the steps of a stage and of those it is made from."""
        parts = _stages(dockerfile.read_text())
        for name in _needed(parts, target):
            self._stages[name] = self._built(name, parts)
        return self._stages[target]

    def command(self, stage: Stage, command: list[str], *, prepare: str = "", final: str = "") -> list[str]:
        """
        What to run for a command in a stage, as its user; the process is the command's own.

        :param prepare: Shell lines before; `$ROOT` is the stage's root.
        :param final: What stands before the command within: how privileges are given up, for example.
        """
        environment = [f"{name}={value}" for name, value in stage.environment.items()]
        inside = f"cd {shlex.quote(stage.folder)} && exec {final} {shlex.join(['env', '-i', *environment, *command])}"
        base, root = self._base(), stage.upper.with_suffix(".root")
        lines = [
            "set -eu",
            f"mount -t overlay base -o lowerdir=/,upperdir={base},workdir={base}.work {base}.root",
            *self._mounts(stage),
            f"mount --rbind /proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
            f"ROOT={root}",
            prepare,
            f'exec chroot "$ROOT" sh -c {shlex.quote(inside)}',
        ]
        # In a mount namespace of its own: whatever is mounted goes with the process.
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]

    def _mounts(self, stage: Stage) -> list[str]:
        """The stage on the base; that is a mount of its own, as layers of one may not lie within each other, and all lie in /."""
        root, work = stage.upper.with_suffix(".root"), stage.upper.with_suffix(".work")
        for folder in (root, work):
            folder.mkdir(exist_ok=True)
        lower = ":".join(map(str, [*stage.layers, f"{self._base()}.root"]))
        lines = [f"mount -t overlay stage -o lowerdir={lower},upperdir={stage.upper},workdir={work} {root}"]
        for other, source, target in stage.copied:
            lines += [*self._mounts(other), f"mount --bind {other.upper.with_suffix('.root')}{source} {root}{target}"]
        return lines

    def _built(self, name: str, parts: dict[str, tuple[str, list[Instruction]]]) -> Stage:
        base, steps = parts[name]
        stage = self._started(self._stages.get(base), name)
        known = self._kept / self._key(name, parts)
        is_base = any(other == name for other, _ in parts.values())
        if is_base and known.exists():
            shutil.rmtree(stage.upper)
            stage.upper = known
        for step in steps:
            self._step(stage, step, skip=stage.upper == known)
        if is_base and stage.upper != known:
            self._kept.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self._kept)  # one version is enough
            self._kept.mkdir()
            shutil.move(stage.upper, known)
            stage.upper = known
        return stage

    def _started(self, base: Stage | None, name: str) -> Stage:
        upper = self._folder / name
        upper.mkdir(parents=True)
        if base is None:
            path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            return Stage([], upper, {"PATH": path, "HOME": "/root"})
        return replace(
            base,
            layers=[base.upper, *base.layers],
            upper=upper,
            environment=dict(base.environment),
            arguments={},
            copied=list(base.copied),
        )

    def _base(self) -> Path:
        """What the image `python` has and this machine has not: the interpreter under its name there, open to every user."""
        layer = self._folder / "python"
        if not layer.exists():
            local, version = layer / "usr" / "local", f"python{sys.version_info[0]}.{sys.version_info[1]}"
            for path in (layer.with_suffix(".work"), layer.with_suffix(".root"), local / "bin", local / "lib"):
                path.mkdir(parents=True)
            for name, other in (("bin/python", f"bin/{version}"), (f"lib/{version}", f"lib/{version}")):
                (local / name).symlink_to(Path(sys.base_prefix) / other)
            for parent in reversed(Path(sys.base_prefix).parents[:-1]):
                if not parent.stat().st_mode & 0o001:
                    (layer / parent.relative_to("/")).mkdir(parents=True, exist_ok=True)
                    (layer / parent.relative_to("/")).chmod(0o711)
        return layer

    def _key(self, name: str, parts: dict[str, tuple[str, list[Instruction]]]) -> str:
        """Of the steps and of the files that they copy; a stage on another one counts that one's, too."""
        base, steps = parts[name]
        digest = hashlib.sha256(self._key(base, parts).encode() if base in parts else b"")
        for step in steps:
            digest.update(repr((step, self._given)).encode())
            if step.name == "COPY" and "from" not in step.flags:
                for path in self._sources(step):
                    digest.update((self.context / path).read_bytes())
        return digest.hexdigest()[:16]

    def _step(self, stage: Stage, step: Instruction, *, skip: bool) -> None:
        text = self._expanded(step.text, stage)
        if step.name == "ARG":
            name, _, default = text.partition("=")
            stage.arguments[name] = self._given.get(name, default)
        elif step.name == "ENV":
            stage.environment |= dict(pair.split("=", 1) for pair in shlex.split(text))
        elif step.name == "WORKDIR":
            stage.folder = text
            (stage.upper / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.name == "USER":
            stage.user = text
        elif step.name in ("ENTRYPOINT", "CMD"):
            setattr(stage, {"ENTRYPOINT": "entrypoint", "CMD": "command"}[step.name], json.loads(text))
        elif step.name == "HEALTHCHECK":
            stage.healthcheck = json.loads(text.removeprefix("CMD "))
        elif step.name == "RUN" and not skip:
            self._run(stage, step)
        elif step.name == "COPY" and not skip:
            self._copy(stage, step, text)
        elif step.name not in ("LABEL", "EXPOSE", "STOPSIGNAL", "RUN", "COPY"):
            raise NotImplementedError(step.name)

    def _run(self, stage: Stage, step: Instruction) -> None:
        variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_")} | stage.arguments
        builder = replace(stage, environment=variables | stage.environment)
        command = self.command(builder, ["sh", "-c", step.text], final=_as_user(stage.user))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"RUN {step.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"

    def _copy(self, stage: Stage, step: Instruction, text: str) -> None:
        *sources, target = text.split()
        folder = Path(stage.folder) / target
        if "from" in step.flags:
            (source,) = sources
            stage.copied.append((self._stages[step.flags["from"]], source, str(folder)))
            (stage.upper / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
            return
        whole = len(sources) == 1 and (self.context / sources[0]).is_dir()
        for path in self._sources(step):
            inner = Path(path).relative_to(sources[0]) if whole else Path(Path(path).name)
            place = stage.upper / (folder / inner).relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.context / path, place)
            self.copied.add(path)

    def _sources(self, step: Instruction) -> list[str]:
        sources = step.text.split()[:-1]
        found = [
            path
            for path in sorted(self.readable)
            if any(path == source or path.startswith(f"{source.rstrip('/')}/") for source in sources)
        ]
        for source in sources:
            assert any(path.startswith(source) for path in found), f"COPY {source}: not in the context"
        return found

    def _expanded(self, text: str, stage: Stage) -> str:
        if text.startswith("["):
            return text
        known = stage.arguments | stage.environment
        return re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], ""), text)


def _as_user(user: str) -> str:
    """Changing to a user within a stage, for good."""
    uid, _, gid = user.partition(":")
    return "" if user == RUN_AS_ROOT else f"setpriv --reuid {uid} --regid {gid} --clear-groups"


def _stages(text: str) -> dict[str, tuple[str, list[Instruction]]]:
    """Each stage's base and steps."""
    found: dict[str, tuple[str, list[Instruction]]] = {}
    steps: list[Instruction] = []
    for step in instructions(text):
        if step.name == "FROM":
            base, _, name = step.text.partition(" AS ")
            found[name] = (base, steps := [])
        else:
            steps.append(step)
    return found


def _needed(parts: dict[str, tuple[str, list[Instruction]]], target: str) -> list[str]:
    """A stage after those that it is made from."""
    base, steps = parts[target]
    others = [base, *(step.flags["from"] for step in steps if "from" in step.flags)]
    below = [name for other in others if other in parts for name in _needed(parts, other)]
    return list(dict.fromkeys([*below, target]))
