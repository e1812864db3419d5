"""kill -9 at random instants: no answered exchange is missing from the ledger, and `ledger verify` is content each time.

CAMBIO_KILLS sets how often (default 50); each round exchanges for 0.1 to 0.5 s on 8 connections and then kills.
"""

import base64
import json
import os
import random
import threading
import time

import requests

from support import Broker, Tally

KILLS = int(os.environ.get("CAMBIO_KILLS", "50"))
seed = int(os.environ.get("CAMBIO_SEED", time.time()))
chance = random.Random(seed)
print(f"seed {seed}, {KILLS} kills")


class Client(threading.Thread):
    """Exchanges a fresh token at a time, and notes what it was answered before it asks again."""

    def __init__(self, broker, stop):
        super().__init__(daemon=True)
        self.broker, self.stop, self.answered, self.refused = broker, stop, [], []

    def run(self):
        session = requests.Session()
        while not self.stop.is_set():
            try:
                answer = self.broker.exchange(self.broker.issuer.token(), session)
            except requests.RequestException:
                if self.stop.wait(0.005):
                    return
                continue
            if answer.status_code == 200:
                told = answer.json()
                leaf = base64.b64decode(told["ledger"]["leaf"]).hex()
                self.answered.append((told["exchange_id"], told["ledger"]["index"], leaf))
            else:
                self.refused.append((answer.status_code, answer.text[:200]))


tally = Tally()
broker = Broker()
slowest = broker.start()
answered, refused, unverified = {}, [], []
try:
    for kill in range(KILLS):
        stop = threading.Event()
        clients = [Client(broker, stop) for _ in range(8)]
        for client in clients:
            client.start()
        time.sleep(chance.uniform(0.1, 0.5))
        broker.kill()
        stop.set()
        for client in clients:
            client.join(15)
            answered.update({ex: (index, leaf) for ex, index, leaf in client.answered})
            refused += client.refused
        verified = broker.cli("ledger", "verify", "--config", str(broker.folder / "cambio.yaml"), check=False)
        if verified.returncode != 0:
            unverified.append((kill, verified.stdout + verified.stderr))
        slowest = max(slowest, broker.start())
    exported = broker.cli("ledger", "export", "--config", str(broker.folder / "cambio.yaml")).stdout
finally:
    code = broker.stop()

recorded = {}
for line in exported.splitlines():
    entry = json.loads(line)
    exchange = entry["event"].get("exchange_id")
    if exchange:
        recorded[exchange] = (entry["index"], entry["leaf_hash"])
missing = [ex for ex, place in answered.items() if recorded.get(ex) != place]
print(f"{len(answered)} answered, {len(recorded)} recorded, slowest start {slowest:.2f} s")
tally.check("exchanges were answered", len(answered) > KILLS, len(answered))
tally.check("no answered exchange is missing from the ledger, or stands elsewhere", not missing, missing[:5])
tally.check("the ledger verifies after each kill", not unverified, unverified[:1])
tally.check("a good exchange is never refused while the broker is up", not refused, refused[:3])
tally.check("a restart is ready within 5 s", slowest < 5, slowest)
tally.check("the broker ends cleanly on SIGTERM", code == 0, code)
tally.end()
