"""MariaDB from Debian (10.11). TLS is offered, not forced: `REQUIRE SSL` of a login is what has to hold.

The broker's user `cambio` has just enough: CREATE USER to make, lock and drop users, CONNECTION ADMIN to end sessions of
others, PROCESS to find them, SELECT on the list of users to find orphans, and what it hands out, with GRANT OPTION.
"""

import os
import subprocess

import certificates
import install

DATABASES = ("orders", "billing")

SETTINGS = """\
[mariadbd]
datadir = {home}/data
socket = {home}/socket
pid_file = {home}/pid
bind_address = 127.0.0.1
skip_name_resolve = ON
ssl_ca = {ca}
ssl_cert = {certificate}
ssl_key = {key}
tls_version = TLSv1.2,TLSv1.3
max_connections = 200
innodb_buffer_pool_size = 64M
innodb_log_file_size = 16M
# So that a test can look for what should never have been sent.
general_log = ON
general_log_file = {home}/statements
"""

USERS = """\
SET sql_log_off = 1;
DELETE FROM mysql.global_priv WHERE User = '';
FLUSH PRIVILEGES;
CREATE USER 'superuser'@'%' IDENTIFIED BY '{superuser}' REQUIRE SSL;
GRANT ALL ON *.* TO 'superuser'@'%' WITH GRANT OPTION;
CREATE USER 'cambio'@'%' IDENTIFIED BY '{admin}' REQUIRE SSL;
GRANT CREATE USER, CONNECTION ADMIN, PROCESS ON *.* TO 'cambio'@'%';
GRANT SELECT ON mysql.user TO 'cambio'@'%';
CREATE ROLE app_read WITH ADMIN 'cambio'@'%';
CREATE ROLE app_write WITH ADMIN 'cambio'@'%';
"""

DATABASE = """\
CREATE DATABASE {name};
CREATE TABLE {name}.entries (number bigint PRIMARY KEY, text varchar(200) NOT NULL);
CREATE SEQUENCE {name}.entries_number START WITH 10;
CREATE TABLE {name}.hidden (text varchar(200) NOT NULL);
INSERT INTO {name}.entries VALUES (1, 'the first in {name}');
INSERT INTO {name}.hidden VALUES ('for no group');
GRANT SELECT ON {name}.entries TO app_read;
GRANT SELECT ON {name}.entries_number TO app_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.entries TO app_write;
GRANT SELECT, INSERT ON {name}.entries_number TO app_write;
GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.entries TO 'cambio'@'%' WITH GRANT OPTION;
GRANT SELECT, INSERT ON {name}.entries_number TO 'cambio'@'%' WITH GRANT OPTION;
"""


def mariadb(world):
    server = install.program(world, "mariadbd", "mariadb-server-core")
    creator = install.program(world, "mariadb-install-db", "mariadb-server-core")
    client = install.program(world, "mariadb", "mariadb-client")
    home = world.home("mariadb")
    certificate, key = certificates.for_server(world, home)
    ca = world.tls / "ca.crt"
    settings = world.write(home / "server.cnf", SETTINGS.format(home=home, ca=ca, certificate=certificate, key=key))
    # The first user is whoever runs this, known to the server by the socket: at no moment is there an open login.
    world.run(
        [
            creator, f"--defaults-file={settings}", "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={world.caller.pw_name}", "--skip-test-db", "--skip-name-resolve",
        ],
        home,
    )

    def argv(port):
        return [server, f"--defaults-file={settings}", f"--port={port}"]

    port = world.launch("mariadb", home, argv, lambda _: ask(client, home, world, "SELECT 1") is not None)
    superuser, superuser_password = world.login("mariadb", "superuser")
    admin, admin_password = world.login("mariadb", "cambio")
    script = USERS.format(superuser=superuser_password, admin=admin_password)
    script += "".join(DATABASE.format(name=database) for database in DATABASES)
    ask(client, home, world, script, loud=True)
    return {
        "kind": "mariadb", "version": ask(client, home, world, "SELECT VERSION()").partition("-")[0], "port": port,
        "log": str(home / "statements"), "client": client, "superuser": superuser, "admin": admin,
        "databases": list(DATABASES), "groups": {"read": "app_read", "write": "app_write"},
    }


def ask(client, home, world, script, loud=False):
    """Runs SQL as the first user by the socket, given on standard input: nothing of it is seen among the processes."""
    done = subprocess.run(
        [client, "--no-defaults", "-N", "-B", f"--socket={home}/socket", f"--user={world.caller.pw_name}"],
        input=script, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=60,
    )
    if done.returncode == 0:
        return done.stdout.strip()
    if loud:
        raise RuntimeError(done.stderr.strip())
    return None
