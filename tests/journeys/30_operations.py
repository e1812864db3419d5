"""Day two: readiness, metrics, a broken reload, a good one, files that nobody else reads, an end without a loss."""

import os
import pathlib
import re
import signal
import stat
import time

import requests

from support import POLICY, Broker, Tally

tally = Tally()
broker = Broker()
ready_after = broker.start()
policy = broker.folder / "policies" / "site.yaml"


def detail(name):
    checks = requests.get(f"{broker.operations}/readyz", timeout=5).json()["checks"]
    return next(check for check in checks if check["name"] == name)


def wait_for(holds, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.1)
    return False


try:
    tally.check("an exchange is granted", broker.exchange(broker.issuer.token()).status_code == 200)
    refused = broker.exchange(broker.issuer.token(event_name="pull_request"))
    tally.check("a pull request is refused with a code and an id",
                refused.status_code == 400 and refused.json()["exchange_id"].startswith("ex_"), refused.text)
    told = broker.cli("policy", "explain", refused.json()["exchange_id"],
                      "--socket", str(broker.folder / "state" / "admin.sock"), check=False)
    tally.check("its owner is told the nearest miss", "got `pull_request`" in told.stdout, told.stdout + told.stderr)

    limits = open(f"/proc/{broker.process.pid}/limits").read()
    tally.check("k12 the process can't dump core", re.search(r"Max core file size +0 +0", limits), limits)
    tasks = list(pathlib.Path(f"/proc/{broker.process.pid}/task").iterdir())
    bare = [task.name for task in tasks if "NoNewPrivs:\t1" not in (task / "status").read_text()]
    tally.check("k12 no thread of it can gain privileges", len(tasks) > 2 and not bare, (len(tasks), bare))
    private = ["state/cambio.db", "state/admin.sock"]
    modes = {name: stat.S_IMODE(os.stat(broker.folder / name).st_mode) for name in private}
    tally.check("store and socket are private", all(mode & 0o077 == 0 for mode in modes.values()), modes)

    policy.write_text(POLICY.replace("repository_id", "repositry_id"))
    broker.process.send_signal(signal.SIGHUP)
    broken = wait_for(lambda: not detail("policies")["ok"])
    tally.check("a broken policy is a detail of readiness, with its line",
                broken and "site.yaml:5" in detail("policies")["detail"], detail("policies"))
    tally.check("the broker stays ready", requests.get(f"{broker.operations}/readyz", timeout=5).status_code == 200)
    tally.check("and the old policy decides", broker.exchange(broker.issuer.token()).status_code == 200)

    code = broker.stop()
    restarted = broker.start()
    tally.check("a restart with the broken policy serves the last good set", code == 0 and not detail("policies")["ok"])
    tally.check("which grants as before", broker.exchange(broker.issuer.token()).status_code == 200)

    policy.write_text(POLICY.replace("event_name: push", "event_name: workflow_dispatch"))
    tally.check("a good policy is in force without a signal", wait_for(lambda: detail("policies")["ok"]))
    tally.check("and decides anew", broker.exchange(broker.issuer.token()).status_code == 400
                and broker.exchange(broker.issuer.token(event_name="workflow_dispatch")).status_code == 200)

    metrics = requests.get(f"{broker.operations}/metrics", timeout=5).text
    tally.check("metrics count grants and refusals", "cambio_exchanges" in metrics, metrics[:400])
    tally.check("and hold nothing that a caller chose", "acme" not in metrics and "4711" not in metrics)
finally:
    code = broker.stop()
verified = broker.cli("ledger", "verify", "--config", str(broker.folder / "cambio.yaml"), check=False)
tally.check("the ledger verifies with its anchor", verified.returncode == 0, verified.stdout + verified.stderr)
log = (broker.folder / "broker.log").read_text()
tally.check("no token is in the log", "eyJ" not in log)
print(f"ready after {ready_after:.3f} s, after a restart {restarted:.3f} s")
tally.end()
