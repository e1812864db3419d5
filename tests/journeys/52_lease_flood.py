"""A thousand leases that end in the same second, at each server in turn: all of them end, over no more connections than the target
may have, while exchanges for another target are answered. How long it took is written down.

CAMBIO_FLOOD sets how many leases (default 1000). The bounds are those of the promise: sessions are cut within 30 s of the end,
nothing of a login is left after 120 s.
"""

import json
import os
import pathlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import requests

import databases as db
from support import Broker, Tally, servers

LEASES = int(os.environ.get("CAMBIO_FLOOD", "1000"))
CONNECTIONS = 4
CALLERS = 8
SESSIONS = 3
NAMES = ("postgres15", "postgres18", "mariadb", "redis")
told = servers(*NAMES)["services"]
# Names of logins come from the log's and the target's names: no other broker at these servers has the same.
targets = {f"flood/{name}": told[name] for name in NAMES}
tally = Tally()
broker = Broker(
    policy=db.policy(targets).replace("    replay:", "      - { target: jwt/orders, role: reader, lifetime: 10m }\n    replay:"),
    targets=db.targets(targets, connections=CONNECTIONS),
)
broker.start()
socket_path = str(broker.folder / "state" / "admin.sock")


def ports_of(pid):
    """The local ports of the TCP connections that process `pid` has."""
    inodes = set()
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry))
        except OSError:
            continue
        if found:
            inodes.add(found[1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                ports.add(int(fields[1].rsplit(":", 1)[1], 16))
    return ports


def seen_by(server):
    """The ports from which our user is connected, as the server says."""
    user = server["admin"]["user"]
    if server["kind"] == "postgres":
        text = db.as_superuser(server, f"SELECT client_port FROM pg_stat_activity WHERE usename = '{user}'")
        return {int(port) for port in text.split()}
    if server["kind"] == "mariadb":
        text = db.as_superuser(server, f"SELECT HOST FROM information_schema.PROCESSLIST WHERE USER = '{user}'")
        return {int(host.rsplit(":", 1)[1]) for host in text.split() if ":" in host}
    lines = db.as_superuser(server, "CLIENT LIST").splitlines()
    return {int(re.search(r" addr=\S+:(\d+) ", line)[1]) for line in lines if f" user={user} " in line}


class Watch(threading.Thread):
    """Counts the broker's connections at `server`, by the server's own word, and exchanges for another target meanwhile."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.over = server, threading.Event()
        self.counts, self.answers, self.broken = [], [], None

    def run(self):
        try:
            while not self.over.is_set():
                before = ports_of(broker.process.pid)
                seen = seen_by(self.server)
                # Others may use the same user at these servers: ours are those that the broker's process has.
                self.counts.append(len(seen & (before | ports_of(broker.process.pid))))
                began = time.monotonic()
                status = broker.exchange(broker.issuer.token()).status_code
                self.answers.append((status, time.monotonic() - began))
        except BaseException as error:  # What ends the thread must not look like a quiet one.
            self.broken = repr(error)

    def stop(self):
        self.over.set()
        self.join(60)


def make(target, end, session):
    """One login that ends in the second `end`."""
    answer = db.get(broker, target, lifetime=max(1, end - int(time.time())), session=session)
    if answer.status_code != 200:
        raise SystemExit(f"{target}: {answer.status_code} {answer.text}\n{broker.tail()}")
    return answer.json()


def flood(target, server):
    """LEASES logins, all ending in one second: that second, and what was answered."""
    local = threading.local()

    def one(end):
        if not hasattr(local, "session"):
            local.session = requests.Session()
        return make(target, end, local.session)

    everything, each, few = [], 0.0, max(4, LEASES // 20)
    with ThreadPoolExecutor(CALLERS) as pool:

        def batch(end, count):
            nonlocal each
            began = time.time()
            answers = list(pool.map(one, [end] * count))
            everything.extend(answers)
            each = max(each, (time.time() - began) / count)
            return answers

        # The first few say how long the others will take. On a machine that gets slower meanwhile it is tried again.
        batch(int(time.time()) + 300, few)
        for _ in range(3):
            end = int(time.time() + min(2 * each * LEASES + 20, 590))
            began, answers = time.time(), batch(end, LEASES)
            # A request that crossed the tick of a second ends one later: others take its place.
            while (missing := LEASES - sum(ends(it) == end for it in answers)) > 0 and time.time() < end - 10:
                answers += batch(end, missing)
            if time.time() < end - 10:
                break
        print(f"        {target}: {len(answers)} logins made in {time.time() - began:.1f} s")
        together = [answer for answer in answers if ends(answer) == end]
        others = [answer["lease"]["token"] for answer in everything if ends(answer) != end]
        list(pool.map(lambda token: requests.post(f"{broker.url}/revoke", data={"token": token}, timeout=60), others))
    return end, together, everything


def ends(answer):
    from datetime import datetime

    return int(datetime.fromisoformat(answer["credential"]["expires_at"].replace("Z", "+00:00")).timestamp())


def leases(*arguments):
    return json.loads(broker.cli("--json", "leases", "list", "--socket", socket_path, *arguments).stdout)["leases"]


everything = {}
try:
    for target, server in targets.items():
        watch = Watch(server)
        watch.start()
        end, together, all_of_them = flood(target, server)
        everything[target] = all_of_them
        tally.check(f"{target}: {LEASES} leases end in the same second", len(together) >= LEASES, len(together))
        names = {answer["credential"]["user"] for answer in all_of_them}
        there = db.logins(server) & names
        tally.check(f"{target}: all of them are there", len(there) >= LEASES, len(there))
        held = [answer["credential"] for answer in together[:SESSIONS]]
        clients = [db.hold(server, it["user"], it["password"]) for it in held]
        tally.check(f"{target}: some have sessions", all(db.sessions(server, it["user"]) == 1 for it in held))
        time.sleep(max(0.0, end - time.time()))

        cut = db.until(30, lambda: not any(db.sessions(server, it["user"]) for it in held))
        cut_after = time.time() - end
        tally.check(f"{target}: within 30 s their sessions are cut", cut is not None)
        gone = db.until(120 - (time.time() - end), lambda: not db.logins(server) & names, every=0.25)
        gone_after = time.time() - end
        tally.check(f"{target}: within 120 s all of them are gone", gone is not None, len(db.logins(server) & names))
        watch.stop()
        for client in clients:
            client.kill()
            client.wait()
        tally.check(f"{target}: the watch went on to the end", watch.broken is None and not watch.is_alive(), watch.broken)
        most = max(watch.counts, default=0)
        tally.check(f"{target}: never more than {CONNECTIONS} connections of the broker's, in {len(watch.counts)} looks",
                    0 < most <= CONNECTIONS, watch.counts)
        refused = [status for status, _ in watch.answers if status != 200]
        slowest = max((took for _, took in watch.answers), default=0)
        tally.check(f"{target}: each of {len(watch.answers)} exchanges for another target was answered meanwhile",
                    watch.answers and not refused, refused)
        # Recorded when it is done, a moment later.
        settled = db.until(30, lambda: not leases("--target", target))
        tally.check(f"{target}: no lease of it is live any more", settled is not None)
        print(f"        {target}: {len(together)} leases ended at once: sessions cut after {cut_after:.1f} s, all gone after "
              f"{gone_after:.1f} s ({len(together) / max(gone_after, 0.001):.0f}/s), over at most {most} connections; "
              f"the slowest exchange for another target took {slowest * 1000:.0f} ms")

    ids = {answer["lease"]["id"] for answers in everything.values() for answer in answers}
    steps = {}
    for entry in db.entries(broker):
        if entry["kind"] == "lease":
            steps.setdefault(entry["event"]["lease"], []).append(entry["event"]["step"])
    unended = [lease for lease in ids if steps.get(lease, [])[-1:] != ["revoked"]]
    tally.check(f"the ledger has all {len(ids)} leases as revoked", not unended, unended[:5])
    troubled = [lease for lease in ids if "irrevocable" in steps.get(lease, [])]
    tally.check("none of them was ever irrevocable", not troubled, troubled[:5])
    verified = broker.cli("ledger", "verify", "--config", str(broker.folder / "cambio.yaml"), check=False)
    tally.check("the ledger verifies", verified.returncode == 0, verified.stdout + verified.stderr)
finally:
    broker.cli("leases", "revoke", "--rule", "site/run", "--reason", "end of the journey", "--socket", socket_path, check=False)
    db.until(60, lambda: not leases(), every=1.0)
    code = broker.stop()
tally.check("the broker ends cleanly on SIGTERM", code == 0, code)
tally.end()
