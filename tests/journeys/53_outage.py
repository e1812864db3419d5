"""A database goes away while its logins should end: the broker says so, everything else goes on, and it is mended within 30 s of
the server's return. The servers are this journey's own, so that it may take them away."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import requests

import databases as db
from support import Broker, Tally, servers

NAMES = ("postgres15", "redis")
UP = db.ROOT / "tests" / "services" / "up"
if "--inside" not in sys.argv:
    servers(*NAMES)
    folder = tempfile.mkdtemp(prefix="outage-", dir=os.environ.get("CAMBIO_TEST_WORK"))
    own = pathlib.Path(folder) / "services.json"
    command = [str(UP), "--out", str(own), *NAMES, "--", sys.executable, __file__, "--inside"]
    sys.exit(subprocess.run(command, env=os.environ | {"CAMBIO_SERVICES": str(own)}, check=False).returncode)

file = os.environ["CAMBIO_SERVICES"]
told = servers(*NAMES)["services"]
targets = {f"outage/{name}": told[name] for name in NAMES}
tally = Tally()
broker = Broker(policy=db.policy(targets), targets=db.targets(targets))
broker.start()
socket = str(broker.folder / "state" / "admin.sock")


def switch(name, way):
    subprocess.run([str(db.ROOT / "tests" / "services" / "switch"), file, name, way], check=True, timeout=60)


def check(name):
    found = requests.get(f"{broker.operations}/readyz", timeout=5).json()["checks"]
    return next((it for it in found if it["name"] == name), None)


def metric(line):
    return line in requests.get(f"{broker.operations}/metrics", timeout=5).text


try:
    for name in NAMES:
        target, server = f"outage/{name}", told[name]
        elsewhere = next(it for it in targets if it != target)
        revoked = db.get(broker, target, run_id="1").json()["credential"]
        expiring = db.get(broker, target, lifetime=4, run_id="2").json()["credential"]
        switch(name, "off")
        done = broker.cli("--json", "leases", "revoke", revoked["lease_id"], "--reason", "drill", "--socket", socket, check=False)
        told_of = json.loads(done.stdout)
        tally.check(f"{name}: a revocation that can't be done says so, and exits with 3",
                    done.returncode == 3 and told_of["pending"] == 1 and told_of["leases"][0]["reason"], done.stdout + done.stderr)
        alarm = db.until(20, lambda: (check(f"leases:{target}") or {"ok": True})["ok"] is False)
        tally.check(f"{name}: readiness names the target and what it says", alarm is not None, check(f"leases:{target}"))
        tally.check(f"{name}: the broker is ready all the same", requests.get(f"{broker.operations}/readyz", timeout=5).status_code == 200)
        seen = db.until(10, lambda: metric(f'cambio_lease_trouble{{target="{target}"}} 1'))
        tally.check(f"{name}: the alarm is in the metrics", seen is not None)
        tally.check(f"{name}: leases that are due are counted", metric(f'cambio_leases_due{{target="{target}"}}'))
        refused = [db.get(broker, target) for _ in range(4)]
        codes = {answer.status_code for answer in refused}
        tally.check(f"{name}: callers are told to come back", codes == {503} and all("retry-after" in it.headers for it in refused),
                    [(it.status_code, dict(it.headers)) for it in refused])
        tally.check(f"{name}: another target is served", db.get(broker, elsewhere).status_code == 200)
        time.sleep(4)
        switch(name, "on")
        gone = db.until(30, lambda: not {revoked["user"], expiring["user"]} & db.logins(server), every=0.5)
        tally.check(f"{name}: within 30 s of its return nothing of them is left", gone is not None)
        quiet = db.until(20, lambda: check(f"leases:{target}") is None and not metric(f'cambio_lease_trouble{{target="{target}"}}'))
        tally.check(f"{name}: the alarm is over", quiet is not None, check(f"leases:{target}"))
        works = db.until(30, lambda: db.get(broker, target).status_code == 200, every=1.0)
        tally.check(f"{name}: and logins can be had again", works is not None)
finally:
    code = broker.stop()
tally.check("the broker ends cleanly on SIGTERM", code == 0, code)
tally.end()
