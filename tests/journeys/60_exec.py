"""`cambio exec` on a GitHub runner, in a GitLab job and in a pod: psql and the AWS CLI work, nothing secret is seen beside the command,
what is renewed is never over, and with the command's end the lease is gone."""

import http.server
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import databases as db
from support import AUDIENCE, CAMBIO, Broker, Tally, servers

services = servers("postgres18")["services"]
told, maria = services["postgres18"], services.get("mariadb")
TARGET = "db/postgres18"
TARGETS = {TARGET: told} | ({"db/mariadb": maria} if maria else {})
tally = Tally()
broker = Broker(policy=db.policy(TARGETS), targets=db.targets(TARGETS))
policy = broker.folder / "policies" / "site.yaml"
policy.write_text(policy.read_text().replace("    grants:\n", "    grants:\n      - { target: jwt/orders, role: reader, lifetime: 10m }\n", 1))
broker.start()
SOCKET = str(broker.folder / "state" / "admin.sock")
PLACE = pathlib.Path(tempfile.mkdtemp(prefix="exec-", dir=os.environ.get("CAMBIO_TEST_WORK")))
# Not in memory, so that what is left would be found.
BASE = {
    "PATH": f"{pathlib.Path(told['client']).parent}:{os.environ['PATH']}", "HOME": str(PLACE), "TMPDIR": str(PLACE),
    "CAMBIO_URL": broker.url, "PGSSLROOTCERT": told["ca_file"],
}


class Desk(http.server.BaseHTTPRequestHandler):
    """Hands out a fresh token at each request, as GitHub's runner does."""

    def do_GET(self):
        good = self.headers["authorization"] == "bearer request-token" and f"audience={AUDIENCE.replace(':', '%3A').replace('/', '%2F')}" in self.path
        body = json.dumps({"value": broker.issuer.token()} if good else {}).encode()
        self.send_response(200 if good else 400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


desk = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk)
threading.Thread(target=desk.serve_forever, daemon=True).start()
GITHUB = BASE | {
    "GITHUB_ACTIONS": "true", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-token",
    "ACTIONS_ID_TOKEN_REQUEST_URL": f"http://127.0.0.1:{desk.server_port}/idtoken?api-version=2.0",
}


def gitlab():
    return BASE | {"GITLAB_CI": "true", "CAMBIO_ID_TOKEN": broker.issuer.token()}


def line(*options, command=(), verb="exec"):
    return [CAMBIO, verb, "--token-audience", AUDIENCE, *options, *(["--", *command] if command else [])]


def run(env, *options, command=(), verb="exec"):
    return subprocess.run(line(*options, command=command, verb=verb), env=env, capture_output=True, text=True, timeout=120)


def begin(env, *options, command):
    return subprocess.Popen(line(*options, command=command), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def nothing_left():
    listed = json.loads(broker.cli("--json", "leases", "list", "--socket", SOCKET).stdout or "[]")
    rows = listed if isinstance(listed, list) else listed.get("leases", listed)
    return not rows and not db.logins(told)


def left_on_disk():
    return [str(path) for folder in (PLACE, pathlib.Path("/dev/shm")) for path in folder.glob(".cambio-exec*")] + [
        str(path) for folder in (PLACE, pathlib.Path("/dev/shm")) for path in folder.glob("cambio-exec*") if path.stat().st_uid == os.getuid()
    ]


ROLE = ("--audience", TARGET, "--scope", "reader")
PSQL = ["psql", "-XAtqc", "SELECT current_user"]
before = set(left_on_disk())

try:
    # Three platforms, two ways.
    pod = PLACE / "projected"
    pod.write_text(broker.issuer.token() + "\n")
    places = {
        "on a GitHub runner": (GITHUB, ()), "in a GitLab job": (gitlab(), ()), "in a pod": (BASE, ("--token-file", str(pod))),
    }
    for where, (env, more) in places.items():
        for hand in ("env", "files"):
            done = run(env, *more, *ROLE, "--hand", hand, command=PSQL)
            tally.check(f"{where}, `exec --hand {hand} -- psql` works", done.returncode == 0 and done.stdout.startswith("cambio_"), done.stderr)
            tally.check("and its login ends with it", nothing_left())
        done = run(env, *more, "--audience", "jwt/orders", "--format", "kubernetes", verb="exchange")
        made = json.loads(done.stdout) if done.returncode == 0 else {}
        tally.check(f"{where}, `exchange --format kubernetes` works", made.get("kind") == "ExecCredential", done.stderr)
    tally.check("nothing is left on disk", set(left_on_disk()) == before, left_on_disk())

    # While it runs: who sees the password?
    for hand in ("env", "files"):
        script = "psql -XAtqc 'SELECT 1'; echo ready; exec sleep 60"
        running = begin(GITHUB, *ROLE, "--hand", hand, command=["sh", "-c", script])
        answer, ready = running.stdout.readline().strip(), running.stdout.readline().strip()
        tally.check(f"--hand {hand}: the command works", (answer, ready) == ("1", "ready"), running.stderr.read() if not ready else "")
        tree, secret = {running.pid}, None
        everyone = [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()]
        for _ in range(3):
            for pid in everyone:
                try:
                    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) in tree:
                    tree.add(pid)
        tree.discard(running.pid)
        environ = {}
        for pid in everyone:
            try:
                environ[pid] = pathlib.Path(f"/proc/{pid}/environ").read_bytes() + pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                pass
        # Beside the command there is who looks after it when we are killed outright: it is given nothing.
        watcher = {pid for pid in tree if environ.get(pid, b"") == b"cambio\0exec-watch\0"}
        tally.check(f"--hand {hand}: one process looks after the command, and has no environment", len(watcher) == 1, (tree, watcher))
        tree -= watcher
        given = dict(item.split(b"=", 1) for item in environ[min(tree)].split(b"\0") if b"=" in item)
        if hand == "env":
            secret = given[b"PGPASSWORD"]
        else:
            secret = pathlib.Path(given[b"PGPASSFILE"].decode()).read_text().strip().rsplit(":", 1)[1].encode()
            tally.check("the files are in memory or where temporary files go", given[b"PGPASSFILE"].startswith((b"/dev/shm/cambio-exec.", str(PLACE).encode())))
        holders = {pid for pid, text in environ.items() if secret in text}
        tally.check(f"--hand {hand}: no process but the command's own has the password in its environment or arguments",
                    holders == (tree if hand == "env" else set()), (holders, tree))
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        out, err = running.communicate(timeout=30)
        tally.check(f"--hand {hand}: SIGTERM ends the command, and that is told", running.returncode == 143, (running.returncode, err))
        tally.check("and its login is gone", nothing_left(), time.monotonic() - began)
        log = (broker.folder / "broker.log").read_text(errors="replace")
        tally.check("the password is in no log and in no word", secret.decode() not in log + out + err)
    tally.check("nothing is left on disk after SIGTERM", set(left_on_disk()) == before, left_on_disk())

    # Exit codes.
    for command, expected in ((["sh", "-c", "exit 42"], 42), (["sh", "-c", "kill -9 $$"], 137), (["no-such-command"], 127), (["/etc/passwd"], 126)):
        done = run(GITHUB, *ROLE, command=command)
        tally.check(f"`{' '.join(command)}` ends as {expected}", done.returncode == expected, (done.returncode, done.stderr))
    done = run(GITHUB, "--audience", TARGET, "--scope", "admin", command=["touch", str(PLACE / "ran")])
    tally.check("refused: nothing runs, and the code is 1", done.returncode == 1 and not (PLACE / "ran").exists(), done.stderr)
    tally.check("none of them leaves a login", nothing_left())

    # Signals.
    script = "trap 'echo INT' INT; trap 'echo USR1' USR1; trap 'echo HUP; exit 3' HUP; echo ready; while :; do sleep 0.05; done"
    running = begin(GITHUB, "--audience", "jwt/orders", command=["sh", "-c", script])
    heard = [running.stdout.readline().strip()]
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        running.send_signal(number)
        heard.append(running.stdout.readline().strip())
    running.wait(30)
    tally.check("signals are handed on", heard == ["ready", "INT", "USR1", "HUP"] and running.returncode == 3, (heard, running.returncode))
    pid, terminal = pty.fork()
    if pid == 0:
        script = "n=0; trap 'n=$((n+1))' INT; echo ready; sleep 1; sleep 1; sleep 1; exit $n"
        os.execve(CAMBIO, line("--audience", "jwt/orders", command=["sh", "-c", script]), GITHUB)
    seen = b""
    while b"ready" not in seen:
        seen += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    tally.check("Ctrl-C in a terminal reaches the command once", code == 1, code)

    # What a command inherits is what it would have without us.
    probe = ["sh", "-c", "umask; ulimit -c; grep -E 'Sig(Ign|Blk)|NoNewPrivs|Seccomp' /proc/self/status"]
    alone = subprocess.run(["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *probe], capture_output=True, text=True).stdout
    inside = subprocess.run(["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *line("--audience", "jwt/orders", command=probe)],
                            env=GITHUB, capture_output=True, text=True).stdout
    # glibc's `posix_spawn` leaves its own two signals, 32 and 33, ignored; every program's own glibc has them again when it needs them.
    ours = re.sub(r"(?<=SigIgn:\t)\w+", lambda found: f"{int(found[0], 16) & ~(3 << 31):016x}", inside)
    tally.check("umask, limits, privileges and ignored signals are those of its surroundings", alone == ours and "0000000000000001" in ours, (alone, inside))

    # Another process of the same user does not look into ours, where the platform's secrets are.
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    if subprocess.run([*nobody, CAMBIO, "version"], capture_output=True).returncode == 0:
        script = "cat /proc/$PPID/environ >/dev/null 2>&1 && echo read; id -u; psql -XAtqc 'SELECT 1'"
        done = subprocess.run([*nobody, *line(*ROLE, "--hand", "files", command=["sh", "-c", script])], env=GITHUB | {"HOME": "/nonexistent"}, capture_output=True, text=True)
        tally.check("a process of the same user can't read the environment of `cambio exec`",
                    done.stdout.split() == [str(65534 if nobody else os.getuid()), "1"], done.stdout + done.stderr)
    else:
        print("        the program can't be started as another user: not looked at")

    # MariaDB, where there is one: the option file is its own client's.
    if maria:
        script = '"$CLIENT" --defaults-extra-file="$CAMBIO_MYSQL_FILE" --ssl-ca="$CA" --ssl-verify-server-cert -NBe "SELECT database()"'
        more = {"CLIENT": maria["client"], "CA": maria["ca_file"]}
        done = run(GITHUB | more, "--audience", "db/mariadb", "--scope", "reader", "--hand", "files", command=["sh", "-c", script])
        tally.check("`exec --hand files -- mariadb` works", done.stdout.strip() == "orders", done.stdout + done.stderr)
        tally.check("and its login ends with it", not db.logins(maria))

    # Killed: the next run sweeps, and leaves those that live.
    killed = begin(GITHUB, *ROLE, "--hand", "files", command=["sh", "-c", "echo $PGPASSFILE; exec sleep 5"])
    stale = pathlib.Path(killed.stdout.readline().strip()).parent
    living = begin(GITHUB, *ROLE, "--hand", "files", command=["sh", "-c", "echo $PGPASSFILE; exec sleep 20"])
    alive = pathlib.Path(living.stdout.readline().strip()).parent
    killed.kill()
    killed.wait()
    tally.check("kill -9 leaves a folder", stale.exists())
    run(GITHUB, *ROLE, "--hand", "files", command=["true"])
    tally.check("which the next run sweeps", not stale.exists())
    tally.check("and the folder of a living one is left alone", alive.exists())
    living.kill()
    living.wait()
    broker.cli("leases", "revoke", "--rule", "site/run", "--reason", "killed", "--socket", SOCKET)
    run(GITHUB, *ROLE, "--hand", "files", command=["true"])

    # Ten lifetimes: each login with what is in the files right now, as a program does that reconnects.
    script = """
import os, subprocess, sys, time
end, good, bad, users = time.monotonic() + 50, 0, [], set()
while time.monotonic() < end:
    done = subprocess.run(["psql", "-XAtqc", "SELECT current_user"], capture_output=True, text=True)
    good, bad = good + (done.returncode == 0), bad + ([done.stderr] if done.returncode else [])
    users.add(done.stdout.strip())
    time.sleep(0.1)
print(good, len(users), len(bad), *bad[:2])
"""
    done = run(GITHUB, *ROLE, "--hand", "files", "--lifetime", "5s", command=[sys.executable, "-c", script])
    counts = done.stdout.split()
    tally.check("for ten lifetimes every login with the files is taken", done.returncode == 0 and int(counts[0]) > 50 and counts[2] == "0", done.stdout + done.stderr)
    tally.check("by more than ten renewals", int(counts[1]) > 10, counts)
    tally.check("and none of them is left", db.until(5, nothing_left) is not None)
    print(f"        {counts[0]} logins with {counts[1]} users")

    # The broker goes away: good until the true end, then gone, and said; and there again when the broker is.
    script = """
import base64, json, os, time
path, began, over, seen = os.environ["CAMBIO_TOKEN_FILE"], time.time(), None, None
print("ready", flush=True)
while time.time() < began + 60:
    try:
        text = open(path).read()
        if over:
            break
        claims = text.split(".")[1]
        seen = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"]
        assert time.time() < seen + 0.5, "an expired one"
    except FileNotFoundError:
        if not over:
            over = time.time()
            print(over - seen, flush=True)
    time.sleep(0.02)
else:
    raise SystemExit("it did not come back")
"""
    running = begin(GITHUB, "--audience", "jwt/orders", "--hand", "files", "--lifetime", "8s", command=[sys.executable, "-c", script])
    running.stdout.readline()
    broker.kill()
    gap = float(running.stdout.readline() or "nan")
    tally.check("without the broker the token is there until its true end, and no longer", -1.1 < gap <= 0.5, gap)
    broker.start()
    out, err = running.communicate(timeout=90)
    tally.check("and there is a new one when the broker is back", running.returncode == 0, err)
    said = ["warning: `jwt/orders` can't be renewed, and is good until `", "error: `jwt/orders` is over since `", "`jwt/orders` is renewed again"]
    places = [err.find(words) for words in said]
    tally.check("all three are said, in this order", -1 not in places and places == sorted(places), err)
    tally.check("nothing is left on disk", set(left_on_disk()) == before, left_on_disk())
finally:
    desk.shutdown()
    code = broker.stop()
tally.end()
