"""kill -9 of the broker at every step between the intent and the answer: nobody gets a credential without an entry, and a minute
after the restart there is no login without a lease and no lease without an end.

Between broker and server stands a proxy that counts what passes, encrypted as it is, and kills the broker before or after the
n-th piece in either direction. CAMBIO_KILLS sets how often (default 100).
"""

import os
import socket
import threading
import time

import requests

import databases as db
from support import Broker, Tally, servers

KILLS = int(os.environ.get("CAMBIO_KILLS", "100"))
NAMES = ("postgres18", "mariadb", "redis")
told = servers(*NAMES)["services"]


class Proxy(threading.Thread):
    """Passes bytes on, and pulls `trigger` when the `at`-th piece of a direction comes, before or after passing it on."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server = server
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock, self.plan, self.seen, self.trigger = threading.Lock(), None, 0, None
        self.passed = {"to": 0, "from": 0}

    def arm(self, plan, trigger):
        with self.lock:
            self.plan, self.trigger, self.seen = plan, trigger, 0

    def run(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection((self.server["host"], self.server["port"]))
            except OSError:
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.pump, args=(client, server, "to"), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, "from"), daemon=True).start()

    def pump(self, source, sink, way):
        try:
            while piece := source.recv(65536):
                fires = self.fires(way)
                if fires == "before":
                    self.trigger()
                sink.sendall(piece)
                if fires == "after":
                    self.trigger()
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def fires(self, way):
        with self.lock:
            self.passed[way] += 1
            if self.plan is None or self.plan[0] != way:
                return None
            self.seen += 1
            if self.seen != self.plan[1]:
                return None
            when = self.plan[2]
            self.plan = None
            return when


targets = {f"db/{name}": told[name] for name in NAMES}
proxies = {target: Proxy(server) for target, server in targets.items()}
for proxy in proxies.values():
    proxy.start()
ports = {target: proxy.port for target, proxy in proxies.items()}
tally = Tally()
before = {target: db.logins(server) for target, server in targets.items()}
broker = Broker(policy=db.policy(targets), targets=db.targets(targets, ports=ports))
broker.start()



def pieces(target):
    """How many pieces one exchange has in each direction, as things stand."""
    before_it = dict(proxies[target].passed)
    if db.get(broker, target, lifetime=600).status_code != 200:
        raise SystemExit(f"{target}: no rehearsal\n{broker.tail()}")
    time.sleep(0.2)
    return {way: proxies[target].passed[way] - before_it[way] for way in before_it}


# Rehearsed, because servers differ: with a connection to be made, and with one that is there already. Then every piece is a step,
# in both directions, before and after; where there are more steps than kills, evenly spread.
steps = {}
for warm in (False, True):
    for target in targets:
        steps[target, warm] = [
            (way, number, when)
            for way, count in pieces(target).items() for number in range(1, count + 1) for when in ("before", "after")
        ]
print("steps:", {f"{target} {'warm' if warm else 'cold'}": len(them) for (target, warm), them in steps.items()})
broker.kill()
broker.start()
each = -(-KILLS // len(steps))
answered, fired, outcomes = [], 0, {"answered": 0, "refused": 0, "cut": 0}
try:
    for kill in range(KILLS):
        target = list(targets)[kill % len(targets)]
        warm = bool(kill % 2)
        if warm:
            db.get(broker, target, lifetime=600)
        plan = steps[target, warm][kill // len(steps) * len(steps[target, warm]) // each]
        dead = threading.Event()

        def trigger():
            broker.process.kill()
            dead.set()

        proxies[target].arm(plan, trigger)
        try:
            answer = db.get(broker, target, lifetime=600)
            if answer.status_code == 200:
                outcomes["answered"] += 1
                answered.append((target, answer.json()))
            else:
                outcomes["refused"] += 1
        except requests.RequestException:
            outcomes["cut"] += 1
        proxies[target].arm(None, None)
        fired += dead.is_set()
        if not dead.is_set():
            broker.process.kill()
        broker.process.wait()
        broker.start()
    restarted = time.monotonic()
    print(f"{KILLS} kills, {fired} of them at a step; {outcomes}")
    socket_path = str(broker.folder / "state" / "admin.sock")

    def settled():
        import json

        rows = json.loads(broker.cli("--json", "leases", "list", "--socket", socket_path).stdout)["leases"]
        return rows if all(row["state"] == "active" for row in rows) else None

    took = db.until(60, settled, every=1.0)
    tally.check("60 s after the last restart every lease is active or ended", took is not None, broker.tail())
    live = settled() or []
    print(f"        settled {time.monotonic() - restarted:.0f} s after the last restart, {len(live)} leases live")
    by_target = {target: {row["object"] for row in live if row["target"] == target} for target in targets}
    for target, server in targets.items():
        ours = db.logins(server) - before[target]
        known = by_target[target]
        tally.check(f"{target}: no login without a lease", ours <= known, sorted(ours - known)[:5])
        tally.check(f"{target}: no active lease without its login", known <= ours, sorted(known - ours)[:5])
    entries = db.entries(broker)
    granted = {it["event"]["exchange_id"] for it in entries if it["kind"] == "granted"}
    concluded = {it["event"]["exchange_id"] for it in entries if it["kind"] == "concluded" and it["event"]["outcome"] == "minted"}
    got = [it["exchange_id"] for _, it in answered]
    tally.check("nobody got a credential without an entry and its conclusion", set(got) <= granted & concluded, got[:3])
    works = [db.probe(targets[target], it["credential"]["user"], it["credential"]["password"]) for target, it in answered[-9:]]
    tally.check("what was answered works", all(works), works)
    verified = broker.cli("ledger", "verify", "--config", str(broker.folder / "cambio.yaml"), check=False)
    tally.check("the ledger verifies", verified.returncode == 0, verified.stdout + verified.stderr)
    tally.check("most kills hit a step of an exchange", fired * 2 > KILLS, fired)
    broker.cli("leases", "revoke", "--rule", "site/run", "--reason", "end of the journey", "--socket", socket_path)
    left = {target: db.logins(server) - before[target] for target, server in targets.items()}
    tally.check("one command ends all that is left", not any(left.values()), left)
finally:
    code = broker.stop()
tally.check("the broker ends cleanly on SIGTERM", code == 0, code)
tally.end()
