"""Certificates made now and thrown away: one authority for the servers, one for clients that log in by certificate."""

import secrets
import subprocess

DAYS = "2"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")


def make(world):
    """`tls/ca.crt` vouches for `tls/server.crt` (localhost, 127.0.0.1, ::1); `tls/clients.crt` for clients."""
    # Every private key is made in `secrets`; certificates are for everyone to read.
    authority(world.tls / "ca.crt", world.secrets / "ca.key", "Cambio tests: servers")
    authority(world.tls / "clients.crt", world.secrets / "clients.key", "Cambio tests: clients")
    issue(
        world.tls / "server.crt", world.secrets / "server.key", world.tls / "ca.crt", world.secrets / "ca.key", "localhost",
        "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nextendedKeyUsage=serverAuth\n",
    )
    for certificate in world.tls.glob("*.crt"):
        certificate.chmod(0o644)


def authority(certificate, key, name):
    openssl(
        "req", "-x509", *NEW_KEY, "-keyout", key, "-out", certificate, "-days", DAYS, "-subj", f"/CN={name}",
        "-addext", "basicConstraints=critical,CA:TRUE,pathlen:1", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )


def issue(certificate, key, by, by_key, name, extensions):
    """A leaf for `name`, signed by the authority `by`."""
    request, more = certificate.with_suffix(".csr"), certificate.with_suffix(".ext")
    openssl("req", *NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    more.write_text(f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n{extensions}")
    openssl(
        "x509", "-req", "-in", request, "-CA", by, "-CAkey", by_key, "-set_serial", f"0x4{secrets.token_hex(15)}", "-days", DAYS,
        "-extfile", more, "-out", certificate,
    )
    request.unlink()
    more.unlink()


def client(world, name, user):
    """A client's certificate and key for the database user `user`, as a broker would have it made. Returns both paths."""
    certificate, key = world.secrets / f"{name}-{user}.crt", world.secrets / f"{name}-{user}.key"
    issue(certificate, key, world.tls / "clients.crt", world.secrets / "clients.key", user, "extendedKeyUsage=clientAuth\n")
    return certificate, key


def for_server(world, home):
    """A copy of the server's certificate and key that the server itself owns: servers refuse keys that others can read."""
    certificate = world.write(home / "server.crt", (world.tls / "server.crt").read_text())
    return certificate, world.write(home / "server.key", (world.secrets / "server.key").read_text())


def openssl(*arguments):
    done = subprocess.run(
        ["openssl", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, umask=0o077
    )
    if done.returncode != 0:
        raise RuntimeError(f"`openssl {arguments[0]}` ended with {done.returncode}: {done.stderr.strip()[-600:]}")
