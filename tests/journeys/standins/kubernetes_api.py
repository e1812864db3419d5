"""A kube-apiserver as far as a caller's token goes: it reads the AuthenticationConfiguration that we ship, fetches our discovery and
keys as that says, and judges each bearer token by its rules. And the way there: a proxy that knows where `cambio.test` is.

The expressions of the configuration are CEL, for which there is no interpreter here: each is known by its exact text, with what
it means. One that is not known is an error, so that this file can't go on judging by rules that the configuration has no more.
"""

import datetime
import http.server
import ipaddress
import json
import select
import socket
import ssl
import threading

import jwt
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"]

CLAIMS = {
    "claims.exp - claims.iat <= 3600": lambda claims: claims["exp"] - claims["iat"] <= 3600,
    "has(claims.scope) && claims.scope != ''": lambda claims: claims.get("scope", "") != "",
}
MAPPINGS = {
    "claims.scope.split(' ').map(role, 'cambio:' + role)":
        lambda claims: ["cambio:" + role for role in claims["scope"].split(" ")],
    "claims.jti": lambda claims: claims["jti"],
}
USERS = {
    "!user.username.startsWith('system:')": lambda user: not user["username"].startswith("system:"),
    "user.groups.all(group, !group.startsWith('system:'))":
        lambda user: not any(group.startswith("system:") for group in user["groups"]),
}


class No(Exception):
    """The caller is not who it says."""


class Authority:
    """A certificate authority, and server certificates of it, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "journey")])
        self.certificate = self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None), None, None)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, key, constraints, names, usage):
        now = datetime.datetime.now(datetime.timezone.utc)
        made = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
                .not_valid_after(now + datetime.timedelta(days=1)).add_extension(constraints, critical=True))
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage:
            made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return made.sign(self.key, hashes.SHA256())

    def _write(self, stem, certificate, key):
        certificate_file, key_file = self.folder / f"{stem}.crt", self.folder / f"{stem}.key"
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.touch(mode=0o600)
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
        return certificate_file, key_file

    def server(self, stem, *hosts):
        names = [x509.DNSName(host) if not host[0].isdigit() else x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
        usage = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
        made = self._sign(subject, key, x509.BasicConstraints(ca=False, path_length=None), names, usage)
        return self._write(stem, made, key)

    def client(self, stem, name, organization):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
                             x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
        return self._write(stem, self._sign(subject, key, x509.BasicConstraints(ca=False, path_length=None), None, usage), key)


class Proxy:
    """An HTTP proxy that tunnels (CONNECT) to one host alone, wherever that is."""

    def __init__(self, host, port):
        self.wanted, self.port = f"{host}:443", port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            caller, _ = self.listener.accept()
            threading.Thread(target=self._tunnel, args=(caller,), daemon=True).start()

    def _tunnel(self, caller):
        head = b""
        while b"\r\n\r\n" not in head:
            more = caller.recv(4096)
            if not more:
                return caller.close()
            head += more
        verb, host = head.split(b" ")[:2]
        if (verb, host) != (b"CONNECT", self.wanted.encode()):
            caller.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
            return caller.close()
        with caller, socket.create_connection(("127.0.0.1", self.port)) as server:
            caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            ends = {caller: server, server: caller}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    try:
                        data = end.recv(65536)
                    except OSError:
                        return None
                    if not data:
                        return None
                    ends[end].sendall(data)


class Judge:
    """What `--authentication-config` makes of a token."""

    def __init__(self, configuration, proxy, ca):
        (self.jwt,) = configuration["jwt"]
        self.proxies, self.ca = {"https": proxy}, str(ca)

    def _get(self, url):
        answer = requests.get(url, proxies=self.proxies, verify=self.ca, timeout=5, allow_redirects=False)
        answer.raise_for_status()
        return answer.json()

    def user(self, token):
        issuer = self.jwt["issuer"]
        document = self._get(issuer["url"] + "/.well-known/openid-configuration")
        if document["issuer"] != issuer["url"]:
            raise No("discovery names another issuer")
        keys = jwt.PyJWKSet.from_dict(self._get(document["jwks_uri"]))
        try:
            header = jwt.get_unverified_header(token)
            if header["alg"] not in ALGORITHMS:
                raise No(header["alg"])
            claims = jwt.decode(token, keys[header["kid"]], algorithms=[header["alg"]], audience=issuer["audiences"],
                                issuer=issuer["url"], options={"require": ["exp", "iat", "sub"]})
        except (jwt.PyJWTError, KeyError) as error:
            raise No(str(error)) from error
        for rule in self.jwt["claimValidationRules"]:
            if not CLAIMS[rule["expression"]](claims):
                raise No(rule["message"])
        mappings = self.jwt["claimMappings"]
        name = mappings["username"]
        user = {
            "username": name["prefix"] + claims[name["claim"]],
            "groups": MAPPINGS[mappings["groups"]["expression"]](claims),
            "extra": {one["key"]: [MAPPINGS[one["valueExpression"]](claims)] for one in mappings["extra"]},
        }
        for rule in self.jwt["userValidationRules"]:
            if not USERS[rule["expression"]](user):
                raise No(rule["message"])
        user["groups"].append("system:authenticated")
        return user


class Api:
    """`GET …/pods` for `cambio:viewer`, and `SelfSubjectReview` for everybody who is somebody."""

    def __init__(self, judge, certificate, key):
        api = self
        self.refused = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, status, body):
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def status(self, code, reason):
                self.answer(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
                                   "message": reason})

            def handled(self, method):
                length = int(self.headers.get("content-length", 0))
                self.rfile.read(length)
                kind, _, token = self.headers.get("authorization", "").partition(" ")
                try:
                    if kind != "Bearer":
                        raise No("no token")
                    user = judge.user(token)
                except No as no:
                    api.refused.append(str(no))
                    return self.status(401, "Unauthorized")
                path = self.path.partition("?")[0]
                if (method, path) == ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews"):
                    return self.answer(201, {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1",
                                             "metadata": {}, "status": {"userInfo": user}})
                if (method, path) == ("GET", "/api/v1/namespaces/orders/pods"):
                    if "cambio:viewer" not in user["groups"]:
                        return self.status(403, "Forbidden")
                    return self.answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})
                return self.status(404, "NotFound")

            def do_GET(self):
                self.handled("GET")

            def do_POST(self):
                self.handled("POST")

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
