"""What the database journeys share: targets for the servers of `tests/services`, and their own clients that log in."""

import json
import os
import pathlib
import subprocess
import time

from support import AUDIENCE, EXCHANGE, JWT  # noqa: F401

ROOT = pathlib.Path(__file__).resolve().parents[2]

POLICY = """\
version: 1
rules:
  - id: run
    issuer: github
    when: {{ repository_id: "1296269", repository_owner_id: "9919", environment: production, event_name: push }}
    grants:
{grants}
    replay: reusable
"""

SERVER = """\
  - name: {name}
    kind: {kind}
    environment: test
    host: {host}
    port: {port}
    tls: {{ ca_file: {ca_file} }}
    user: {user}
    password_file: {password_file}
    connections: {connections}
    logins_per_subject: 10000
    ceiling: 1h
    granted_by: [site.yaml]
{more}"""

KINDS = {
    "postgres": ("postgres", "    owner: {heir}\n    roles: {{ reader: {{ member_of: [{read}], database: orders }}, writer: {{ member_of: [{write}], database: orders }} }}\n"),
    "mariadb": ("mysql", "    ends: by_broker\n    database: orders\n    roles: {{ reader: {{ grants: [{{ database: orders, table: entries, privileges: [select] }}] }}, writer: {{ grants: [{{ database: orders, table: entries, privileges: [select, insert] }}] }} }}\n"),
    "redis": ("redis", "    ends: by_broker\n    roles: {{ reader: {{ read_keys: [\"app:*\"], commands: [\"+@read\", \"+ping\"] }}, writer: {{ keys: [\"app:*\"], commands: [\"+@read\", \"+@write\", \"+ping\"] }} }}\n"),
}


def targets(services, connections=4, ports=None):
    """The YAML of one target for each of `services` (name → what `tests/services/up` told)."""
    text = ""
    for name, told in services.items():
        kind, more = KINDS[told["kind"]]
        groups = told.get("groups", {})
        more = more.format(heir=told.get("heir", ""), read=groups.get("read", ""), write=groups.get("write", ""))
        text += SERVER.format(
            name=name, kind=kind, host=told["host"], port=(ports or {}).get(name, told["port"]), ca_file=told["ca_file"],
            user=told["admin"]["user"], password_file=told["admin"]["password_file"], connections=connections, more=more,
        )
    return text


def policy(services):
    grants = [
        f"      - {{ target: {name}, role: {role}, lifetime: 10m }}" for name in services for role in ("reader", "writer")
    ]
    return POLICY.format(grants="\n".join(grants))


def get(broker, target, role="writer", lifetime=60, session=None, **claims):
    """One exchange; the answer as it came."""
    import requests

    form = {
        "grant_type": EXCHANGE, "subject_token": broker.issuer.token(**claims), "subject_token_type": JWT,
        "audience": target, "scope": role, "requested_lifetime": str(lifetime),
    }
    return (session or requests).post(f"{broker.url}/token", data=form, timeout=60)


def command(told, user, password, statement, database=None):
    """The server's own client, as a user would call it: (argv, environment)."""
    env = dict(os.environ)
    if told["kind"] == "postgres":
        env |= {"PGPASSWORD": password, "PGSSLMODE": "verify-full", "PGSSLROOTCERT": told["ca_file"], "PGCONNECT_TIMEOUT": "10"}
        return [told["client"], "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", told["host"], "-p", str(told["port"]), "-U", user,
                "-d", database or "orders", "-c", statement], env
    if told["kind"] == "mariadb":
        env["MYSQL_PWD"] = password
        return [told["client"], "--no-defaults", "-N", "-B", "-h", told["host"], "-P", str(told["port"]), "-u", user,
                f"--ssl-ca={told['ca_file']}", "--ssl-verify-server-cert", "-D", database or "orders", "-e", statement], env
    env["REDISCLI_AUTH"] = password
    return [told["client"], "--no-auth-warning", "-e", "-h", told["host"], "-p", str(told["port"]), "--tls", "--cacert",
            told["ca_file"], "--user", user, *statement.split()], env


def run(told, user, password, statement, database=None):
    argv, env = command(told, user, password, statement, database)
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)


def as_superuser(told, statement, database=None):
    password = pathlib.Path(told["superuser"]["password_file"]).read_text().strip()
    done = run(told, told["superuser"]["user"], password, statement, database or ("postgres" if told["kind"] == "postgres" else None))
    if done.returncode != 0:
        raise SystemExit(f"{statement}: {done.stderr}")
    return done.stdout.strip()


def hold(told, user, password):
    """A session that would last for ten minutes: the process of the client."""
    long = {"postgres": "SELECT pg_sleep(600)", "mariadb": "SELECT SLEEP(600)"}.get(told["kind"])
    if long is None:
        argv, env = command(told, user, password, "")
        client = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        client.stdin.write("PING\n")
        client.stdin.flush()
        client.stdout.readline()
        return client
    argv, env = command(told, user, password, long)
    client = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(10, lambda: sessions(told, user) == 1)
    return client


def sessions(told, user):
    """How many sessions `user` has, as the server says."""
    if told["kind"] == "postgres":
        return int(as_superuser(told, f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}'"))
    if told["kind"] == "mariadb":
        return int(as_superuser(told, f"SELECT count(*) FROM information_schema.PROCESSLIST WHERE USER = '{user}'"))
    return sum(f" user={user} " in line for line in as_superuser(told, "CLIENT LIST").splitlines())


def logins(told):
    """The names of all logins at the server that a broker made."""
    if told["kind"] == "postgres":
        text = as_superuser(told, "SELECT rolname FROM pg_roles WHERE rolname LIKE 'cambio\\_%'")
        return set(text.split())
    if told["kind"] == "mariadb":
        return set(as_superuser(told, "SELECT User FROM mysql.user WHERE User LIKE 'cambio\\_%'").split())
    return {name for name in as_superuser(told, "ACL USERS").split() if name.startswith("cambio_")}


def probe(told, user, password):
    """Whether the login works: a statement that its role may run."""
    statement = {"redis": "GET app:1"}.get(told["kind"], "SELECT 1")
    return run(told, user, password, statement).returncode == 0


def until(seconds, holds, every=0.1):
    """The seconds until `holds()`; None if it did not within `seconds`."""
    began = time.monotonic()
    while True:
        if holds():
            return time.monotonic() - began
        if time.monotonic() - began > seconds:
            return None
        time.sleep(every)


def entries(broker):
    text = broker.cli("ledger", "export", "--config", str(broker.folder / "cambio.yaml")).stdout
    return [json.loads(line) for line in text.splitlines()]
