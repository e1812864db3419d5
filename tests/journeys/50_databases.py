"""A token of a CI job becomes a login at PostgreSQL 15 and 18, MariaDB and Redis, used by their own clients; it ends with its
lease, whether the broker lives or not; everything that a run got ends with one command."""

import time

import databases as db
from support import Broker, Tally, servers

NAMES = ("postgres15", "postgres18", "mariadb", "redis")
told = servers(*NAMES)["services"]
targets = {f"db/{name}": told[name] for name in NAMES}
tally = Tally()
broker = Broker(policy=db.policy(targets), targets=db.targets(targets))
broker.start()


def login(target, **wanted):
    answer = db.get(broker, target, **wanted)
    if answer.status_code != 200:
        raise SystemExit(f"{target}: {answer.status_code} {answer.text}\n{broker.tail()}")
    return answer.json()


def refused(server, credential):
    return not db.probe(server, credential["user"], credential["password"])


SQL = ["INSERT INTO entries VALUES (1, 'x')", "SELECT count(*) FROM hidden", "CREATE TABLE mine (n int)"]
DENIED = {
    "postgres": [*SQL, "CREATE ROLE mallory", "SET ROLE app_write"],
    "mariadb": [*SQL, "CREATE USER mallory", "SELECT count(*) FROM mysql.user"],
    "redis": ["SET app:1 x", "GET hidden:1", "ACL LIST", "CONFIG GET dir"],
}


try:
    # A login works, and can do what its role can, no more.
    for target, server in targets.items():
        answer = login(target, role="reader")
        credential = answer["credential"]
        shape = {"kind", "user", "password", "host", "port", "uri", "expires_at", "lease_id"}
        tally.check(f"{target}: the answer has the documented shape",
                    shape <= set(credential) and answer["lease"]["id"] == credential["lease_id"]
                    and answer["issued_token_type"] == "urn:cambio:token-type:database", sorted(credential))
        user, password = credential["user"], credential["password"]
        tally.check(f"{target}: its own client logs in", db.probe(server, user, password))
        for statement in DENIED[server["kind"]]:
            done = db.run(server, user, password, statement)
            tally.check(f"{target}: a reader is refused `{statement}`", done.returncode != 0, done.stdout)
        # Its holder ends it by its own token.
        import requests

        ended = requests.post(f"{broker.url}/revoke", data={"token": answer["lease"]["token"]}, timeout=30)
        tally.check(f"{target}: its holder revokes it", ended.status_code == 200, ended.text)
        tally.check(f"{target}: and it is gone", refused(server, credential) and user not in db.logins(server))

    # With the broker alive: refused one second after the end, sessions cut, nothing left.
    held = {}
    for target, server in targets.items():
        credential = login(target, lifetime=8)["credential"]
        end = time.monotonic() + 8
        held[target] = (server, credential, db.hold(server, credential["user"], credential["password"]), end)
    for target, (server, credential, client, end) in held.items():
        time.sleep(max(0.0, end + 1 - time.monotonic()))
        tally.check(f"{target}: one second after its end the login is refused", refused(server, credential))
        cut = db.until(29, lambda: db.sessions(server, credential["user"]) == 0)
        tally.check(f"{target}: its session ended within 30 s", cut is not None)
        gone = db.until(90, lambda: credential["user"] not in db.logins(server))
        tally.check(f"{target}: nothing of it is left within 120 s", gone is not None)
        client.kill()
        client.wait()
        print(f"        {target}: session cut and login gone {time.monotonic() - end:.1f} s after the end")

    # With the broker dead.
    held = {}
    for target, server in targets.items():
        credential = login(target, lifetime=6)["credential"]
        held[target] = (server, credential, time.monotonic() + 6)
    broker.kill()
    for target, (server, credential, end) in held.items():
        time.sleep(max(0.0, end + 1 - time.monotonic()))
        if server["kind"] == "postgres":
            tally.check(f"{target}: the login ends without the broker", refused(server, credential))
        else:
            tally.check(f"{target}: it says by_broker, and it is so", not refused(server, credential))
    broker.start()
    for target, (server, credential, _) in held.items():
        gone = db.until(30, lambda: credential["user"] not in db.logins(server))
        tally.check(f"{target}: within 30 s of the broker's return nothing of it is left", gone is not None)

    # Everything that one run got, over all servers, in one command.
    run = [(server, login(target, run_id="815")["credential"]) for target, server in targets.items()]
    other = [(server, login(target, run_id="816")["credential"]) for target, server in targets.items()]
    socket = str(broker.folder / "state" / "admin.sock")
    done = broker.cli("--json", "leases", "revoke", "--claim", "run_id=815", "--reason", "drill", "--socket", socket, check=False)
    tally.check("`leases revoke --claim run_id=815` ends with 0", done.returncode == 0, done.stdout + done.stderr)
    tally.check("all that run 815 got is refused", all(refused(server, it) for server, it in run))
    tally.check("what run 816 got works on", all(not refused(server, it) for server, it in other))
    tally.check("the block that keeps it away is offered", "cambio block set --claim 'run_id=815'" in done.stderr, done.stderr)
    ids = {it["lease_id"] for _, it in run}
    steps = [entry["event"] for entry in db.entries(broker) if entry["kind"] == "lease" and entry["event"]["lease"] in ids]
    asked = {it["lease"] for it in steps if it["step"] == "revoking" and it["reason"] == "drill" and it["who"].startswith("uid:")}
    ended = {it["lease"] for it in steps if it["step"] == "revoked"}
    tally.check("the ledger shows who asked for it and that it was done", asked == ids and ended == ids, steps)
    listed = broker.cli("--json", "leases", "list", "--socket", socket).stdout
    tally.check("the list has what is left", all(it["lease_id"] in listed for _, it in other), listed)
    broker.cli("leases", "revoke", "--rule", "site/run", "--reason", "end of the journey", "--socket", socket)
    left = {target: db.logins(server) & {it["user"] for s, it in run + other if s is server} for target, server in targets.items()}
    tally.check("nothing is left at any server", not any(left.values()), left)

    # No password in what the broker logged, nor in the ledger.
    log = (broker.folder / "broker.log").read_text(errors="replace")
    exported = broker.cli("ledger", "export", "--config", str(broker.folder / "cambio.yaml"), check=False).stdout
    secrets = [it["password"] for _, it in run + other]
    tally.check("no password is in the log or the ledger", not any(secret in log + exported for secret in secrets))
finally:
    code = broker.stop()
tally.check("the broker ends cleanly on SIGTERM", code == 0, code)
tally.end()
