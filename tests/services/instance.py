"""A throw-away server: a folder, a port and a process of its own, ended by the id that it was started with."""

import json
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PREFIX = "cambio-services."
TRIES, PAUSE = 150, 0.2  # how often, and how many seconds apart, a starting server is asked whether it is ready


class Missing(Exception):
    """What a server needs is not on this machine: the server is skipped, and the reason is said."""


class World:
    """One set of servers below one folder. `unprivileged` is the user they run as: `nobody` when the caller is root."""

    def __init__(self, folder, install=False):
        self.folder = pathlib.Path(folder).resolve()
        self.install = install
        self.caller = pwd.getpwuid(os.getuid())
        self.unprivileged = pwd.getpwnam("nobody") if self.caller.pw_uid == 0 else self.caller
        self.secrets, self.tls = self.folder / "secrets", self.folder / "tls"

    @classmethod
    def new(cls, folder=None, install=False):
        """A set below `folder`, which is empty, or below a new one."""
        world = cls(folder or tempfile.mkdtemp(prefix=PREFIX, dir=os.environ.get("TMPDIR", "/tmp")), install)
        # Servers pass through the folder to their own part of it, and see nothing else.
        world.folder.chmod(0o711)
        world.secrets.mkdir(mode=0o700)
        world.tls.mkdir(mode=0o755)
        return world

    def home(self, name):
        """The folder of one server, its own alone."""
        home = self.folder / name
        home.mkdir(mode=0o700)
        self.give(home)
        return home

    def give(self, path):
        """Hands a file or folder to the user that the servers run as."""
        if self.unprivileged is not self.caller:
            os.chown(path, self.unprivileged.pw_uid, self.unprivileged.pw_gid)

    def write(self, path, text, mode=0o600):
        """A file that a server reads, its own, never wider than `mode` even for a moment."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
        self.give(path)
        return path

    def login(self, service, user):
        """A login with a password made now. It stays in a file of mode 0600: the JSON names the file, not the password."""
        file = self.secrets / f"{service}-{user}"
        password = secrets.token_hex(24)  # hexadecimal: needs no quoting in SQL, in a URI or in an ACL line
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(password)
        return {"user": user, "password_file": str(file)}, password

    def as_unprivileged(self, argv):
        """`setpriv` replaces itself by the command, so the id of the process that is started is the server's own."""
        if self.unprivileged is self.caller:
            return ["setpriv", "--no-new-privs", *argv]
        user = self.unprivileged
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--no-new-privs", *argv]

    def run(self, argv, cwd):
        """Runs a command as the servers' user to its end; an interrupt ends it with all that it started."""
        process = subprocess.Popen(
            self.as_unprivileged([str(part) for part in argv]), cwd=cwd, env=environment(cwd), text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        try:
            said, _ = process.communicate(timeout=120)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"`{argv[0]}` ended with {process.returncode}: {said.strip()[-600:]}")

    def readable(self, path):
        """Whether the servers' user can run `path`: a checkout below a private home folder is closed to `nobody`."""
        return subprocess.run(self.as_unprivileged(["test", "-x", str(path)]), cwd="/", check=False).returncode == 0

    def launch(self, name, home, argv, ready, stop="SIGTERM"):
        """Starts a server on a free port (`argv` is a function of it) and waits until `ready(port)`. Returns the port.

        Between finding a port free and using it another process may take it: a server that ends while starting gets
        two more tries, on other ports.
        """
        for last in (False, False, True):
            port = free_port()
            entry = {"name": name, "argv": [str(part) for part in argv(port)], "home": str(home), "stop": stop, "port": port}
            process = self.spawn(entry)
            for _ in range(TRIES):
                if process.poll() is not None:
                    break
                if ready(port):
                    return port
                time.sleep(PAUSE)
            still_there = process.poll() is None
            end(entry)
            self.forget(entry)
            if last or still_there:
                how = f"was not ready in {TRIES * PAUSE:.0f} s" if still_there else f"ended with {process.returncode}"
                raise RuntimeError(f"{name} {how} while starting:\n{tail(home / 'log')}")

    def spawn(self, entry):
        """Starts what `entry` says and writes its id down; an interrupt waits until both are done."""
        with uninterrupted:
            process = spawn(self, entry)
            processes = [one for one in recorded(self.folder) if one["name"] != entry["name"]]
            record(self.folder, [*processes, entry])
        return process

    def forget(self, entry):
        record(self.folder, [one for one in recorded(self.folder) if one["name"] != entry["name"]])


class Interrupts:
    """Turns the signals that end a run into `SystemExit`, so that every `finally` is reached; inside `with`, later."""

    def __init__(self):
        self.held, self.waiting = 0, None

    def listen(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self.arrived)

    def arrived(self, number, _frame):
        if self.held:
            self.waiting = number
        else:
            raise SystemExit(128 + number)

    def __enter__(self):
        self.held += 1

    def __exit__(self, *_):
        self.held -= 1
        if not self.held and self.waiting is not None:
            number, self.waiting = self.waiting, None
            raise SystemExit(128 + number)


uninterrupted = Interrupts()


def environment(home):
    """Nothing of the caller's settings reaches a server."""
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": str(home)}


def spawn(world, entry):
    """Starts what `entry` says, in a session of its own (an interrupt at the terminal reaches it through us, in order)."""
    log = os.open(pathlib.Path(entry["home"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            world.as_unprivileged(entry["argv"]), cwd=entry["home"], env=environment(entry["home"]),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )
    finally:
        os.close(log)
    entry["pid"] = process.pid
    entry["started"] = started(process.pid)
    return process


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def started(pid):
    """When a process began, in ticks since boot; None when it has ended. With the id it names a process for good: ids
    are used again, and a wrong one must never be ended."""
    try:
        after = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after[0] in "ZX" else int(after[19])


def alive(entry):
    return entry.get("started") is not None and started(entry["pid"]) == entry["started"]


def end(entry, patience=15.0):
    """Ends one server in good order, or after `patience` seconds at once."""
    for name, wait in ((entry["stop"], patience), ("SIGKILL", 5.0)):
        if not alive(entry):
            return
        try:
            os.kill(entry["pid"], getattr(signal, name))
        except ProcessLookupError:
            return
        until = time.monotonic() + wait
        while alive(entry) and time.monotonic() < until:
            time.sleep(0.02)
    if alive(entry):
        raise RuntimeError(f"{entry['name']} (process {entry['pid']}) did not end")


def recorded(folder):
    try:
        return json.loads((pathlib.Path(folder) / "processes.json").read_text())
    except FileNotFoundError:
        return []


def record(folder, processes):
    """Written before anything is waited for, whole or not at all: whatever happens next, it can be ended."""
    file = pathlib.Path(folder) / "processes.json"
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(processes, indent=1))
    draft.rename(file)


def tear_down(folder, out=None):
    """Ends every server of a folder, then removes the folder and the file that described them."""
    folder = pathlib.Path(folder)
    for entry in reversed(recorded(folder)):
        end(entry)
    # Only what `up` made, or was going to fill.
    if folder.name.startswith(PREFIX) and ((folder / "secrets").is_dir() or not any(folder.iterdir())):
        remove(folder)
    if out is not None:
        pathlib.Path(out).unlink(missing_ok=True)


def remove(folder):
    """Something that was killed a moment ago may still write its last file."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    shutil.rmtree(folder)


def tail(path):
    try:
        return "\n".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-15:])
    except FileNotFoundError:
        return "(no log)"
