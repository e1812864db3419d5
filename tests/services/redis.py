"""Redis from Debian (7), TLS only. One instance keeps its users in memory alone, one in an `aclfile`: after a restart the
first has forgotten every lease, the second those that were not saved.

The broker's user `cambio` has just enough: the ACL and CLIENT commands, and no key. (Who may set ACLs can give itself the
rest: Redis knows no limit to that.)
"""

import hashlib
import os
import pathlib
import subprocess

import certificates
import install

SETTINGS = """\
bind 127.0.0.1
port 0
tls-port {port}
tls-cert-file {certificate}
tls-key-file {key}
tls-ca-cert-file {ca}
tls-auth-clients no
tls-protocols "TLSv1.2 TLSv1.3"
dir {home}
# The keys outlive a restart, as the users of leases may or may not.
appendonly yes
save ""
"""

USERS = """\
user default off nopass sanitize-payload resetchannels -@all
user superuser on #{superuser} ~* &* +@all
user cambio on #{admin} resetkeys resetchannels -@all +acl +client +hello +ping
"""


def redis(world):
    return start(world, "redis", aclfile=False)


def redis_aclfile(world):
    return start(world, "redis-aclfile", aclfile=True)


def start(world, name, aclfile):
    client = install.program(world, "redis-cli", "redis-tools")
    home = world.home(name)
    server = program(world, home)
    certificate, key = certificates.for_server(world, home)
    superuser, superuser_password = world.login(name, "superuser")
    admin, admin_password = world.login(name, "cambio")
    users = USERS.format(superuser=digest(superuser_password), admin=digest(admin_password))
    acl_file = world.write(home / "users.acl", users) if aclfile else None
    users = f"aclfile {acl_file}\n" if aclfile else users

    def argv(port):
        settings = SETTINGS.format(home=home, ca=world.tls / "ca.crt", certificate=certificate, key=key, port=port)
        return [server, world.write(home / f"server-{port}.conf", settings + users)]

    def ask(port, *command):
        done = subprocess.run(
            [client, "--tls", "--cacert", world.tls / "ca.crt", "-h", "127.0.0.1", "-p", str(port), "--user", "superuser", *command],
            stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"], "REDISCLI_AUTH": superuser_password},
            capture_output=True, text=True, timeout=30,
        )
        return done.stdout.strip()

    port = world.launch(name, home, argv, lambda port: ask(port, "PING") == "PONG")
    for key_name in ("orders:1", "orders:2", "billing:1"):
        if ask(port, "SET", key_name, f"the value of {key_name}") != "OK":
            raise RuntimeError(f"{name}: `{key_name}` could not be set")
    version = next(line.partition(":")[2] for line in ask(port, "INFO", "server").split() if line.startswith("redis_version:"))
    return {
        "kind": "redis", "version": version, "port": port, "log": str(home / "log"), "client": client,
        "superuser": superuser, "admin": admin, "acl_file": str(acl_file) if acl_file else None,
    }


def program(world, home):
    """Debian's `redis-server` is a name for the program in `redis-tools`, which looks at how it was called: without the
    package of the service, a name of our own does the same."""
    packaged = install.find("redis-server")
    if packaged is not None:
        return packaged
    checker = pathlib.Path(install.program(world, "redis-check-rdb", "redis-tools")).resolve()
    name = home / "redis-server"
    name.symlink_to(checker)
    return name


def digest(password):
    return hashlib.sha256(password.encode()).hexdigest()
