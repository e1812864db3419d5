"""What a server needs from outside, only when `--install` was said. Nothing here starts or stops a packaged service:
MariaDB comes as `mariadb-server-core` and Redis as `redis-tools`, which hold the programs and no service. Only
`postgresql-15` brings a cluster of its own on a fresh machine; it is left alone, on its own port."""

import os
import pathlib
import shutil
import subprocess

from instance import Missing

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target" / "tools"
_updated = False


def program(world, name, package, folders=()):
    """The path of a program, from Debian's `package` when it is not there."""
    path, reason = find(name, folders), "run with --install"
    if path is None and world.install:
        reason = debian(package)
        path = find(name, folders)
    if path is None:
        raise Missing(f"`{name}` of Debian's `{package}` is not here: {reason or 'the package has none'}")
    return path


def find(name, folders=()):
    search = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"])
    return shutil.which(name, path=search)


def debian(package):
    """Installs a package. None when it worked, else the reason."""
    global _updated
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    sudo = [] if os.getuid() == 0 else ["sudo", "-n"]
    quiet = [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    if not _updated:
        run([*quiet, "update"])  # where it fails, the lists that are there may do
        _updated = True
    return run([*quiet, "install", "-y", "--no-install-recommends", package])


def npm(world, package, version, into):
    """One npm package at one version, without its scripts, below `target/tools` where it stays for the next run."""
    folder = TOOLS / f"{into}-{version}"
    inside = folder / "node_modules" / package
    if not inside.is_dir():
        if not world.install:
            raise Missing(f"npm's `{package}` is not here: run with --install")
        if shutil.which("npm") is None:
            debian("nodejs")
            debian("npm")
        if shutil.which("npm") is None:
            raise Missing(f"npm is not here to install `{package}`")
        # Beside its place and then renamed: an installation that was interrupted is not taken for a whole one.
        draft = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        try:
            (draft / "package.json").write_text('{ "private": true }\n')
            done = run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", f"{package}@{version}"], draft)
            if done is not None:
                raise Missing(f"npm could not install `{package}@{version}`: {done}")
            placed = draft / "node_modules" / package
            if (placed / "scripts" / "hydrate-symlinks.js").exists():
                run(["node", "scripts/hydrate-symlinks.js"], placed)
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return inside


def run(argv, cwd=None):
    """None when it worked, else the end of what it said."""
    try:
        done = subprocess.run(
            argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stdout.strip()[-400:] or f"exit {done.returncode}"
