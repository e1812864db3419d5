"""Google's STS and credentials API, Entra, GitHub and a resource of each, in one server: they verify what is signed and what is
sent, with our key set fetched over HTTP for each assertion, and refuse as the real ones do, where that is documented.

It can also hang, fail, talk garbage and throttle. HTTPS with a CA of its own, and plain HTTP beside it for clients that want it.
"""

import datetime
import http.server
import ipaddress
import json
import pathlib
import re
import ssl
import threading
import time
import urllib.parse

import jwt
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PROVIDER = "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/cambio/providers/cambio"
ACCOUNT = "deployer@acme-prod.iam.gserviceaccount.com"
PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
TENANT = "0b1f6a52-7c1d-4f0e-9a51-2f6f0c7f2a11"
CLIENT = "5d0c4a7b-8f2e-4c9d-8e7a-6b511c9d0e7a"
SUBJECT = "cambio:prod:deploy"
APP = "Iv23liCambioTest"
INSTALLATION = 4711
REPOSITORIES = {1296269: "site", 777: "docs"}
JWK_MEMBERS = {"kty", "alg", "use", "kid", "n", "e", "x", "y", "crv"}
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class No(Exception):
    """A refusal: status and body."""

    def __init__(self, status, body):
        super().__init__(body)
        self.status, self.body = status, body


def oauth(code, words, status=400):
    return No(status, {"error": code, "error_description": words})


def google(code, status, words):
    return No(code, {"error": {"code": code, "message": words, "status": status}})


def entra(number, error, words):
    return No(400, {
        "error": error, "error_description": f"AADSTS{number}: {words}", "error_codes": [number],
        "timestamp": "2027-01-15 08:00:00Z", "trace_id": "trace", "correlation_id": "correlation",
    })


class Clouds:
    """The server. `folder` gets its CA; `issuer` is whose assertions are trusted, `keys` where its key set is."""

    def __init__(self, folder, issuer, keys):
        self.issuer, self.keys = issuer, keys
        self.mood, self.seen, self.tokens = "well", [], {}
        # Where the mood shows: a part of the request line; and how long answering has taken so far, in seconds.
        self.only, self.spent = "", 0.0
        self.app_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.app_pem = self.app_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ).decode()
        self.ca = pathlib.Path(folder, "clouds-ca.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate(folder))
        self._tls, self._plain = self._server(context), self._server(None)
        self.url = f"https://localhost:{self._tls.server_port}"
        self.plain = f"http://127.0.0.1:{self._plain.server_port}"

    def _certificate(self, folder):
        now = datetime.datetime.now(datetime.timezone.utc)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clouds of a test")])
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        ca_key = ec.generate_private_key(ec.SECP256R1())
        base = lambda subject, public: (
            x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=2))
        )
        ca = base(name, ca_key.public_key()).add_extension(x509.BasicConstraints(True, 0), True)
        ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), False)
        usage = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
             "encipher_only", "decipher_only"], False)
        ca = ca.add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), True)
        ca = ca.sign(ca_key, hashes.SHA256())
        leaf = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        leaf = base(leaf, key.public_key()).add_extension(x509.SubjectAlternativeName(names), False)
        leaf = leaf.add_extension(x509.BasicConstraints(False, None), True)
        leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
        leaf = leaf.add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), False)
        leaf = leaf.sign(ca_key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        self.ca.write_bytes(ca.public_bytes(pem))
        chain = pathlib.Path(folder, "clouds-server.pem")
        chain.touch(mode=0o600)
        chain.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + leaf.public_bytes(pem)
        )
        return chain

    def _server(self, context):
        clouds = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body are two writes: without this the second waits for an acknowledgement, 40 ms.
            disable_nagle_algorithm = True

            def handle_one(self):
                length = int(self.headers.get("content-length") or 0)
                clouds.answer(self, self.rfile.read(length).decode())

            do_GET = do_POST = do_DELETE = do_PUT = handle_one

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def end(self):
        self.mood = "well"
        for server in (self._tls, self._plain):
            server.shutdown()
            server.server_close()

    def answer(self, handler, body):
        began = time.perf_counter()
        line = f"{handler.command} {handler.path}"
        kind = handler.headers.get("content-type", "").split(";")[0]
        if kind == "application/x-www-form-urlencoded":
            pairs = urllib.parse.parse_qsl(body, keep_blank_values=True, strict_parsing=True)
            asked = dict(pairs)
            if len(asked) != len(pairs):
                asked = {}
        else:
            asked = json.loads(body) if body else {}
        mood = self.mood if self.only in line and not line.startswith("GET") else "well"
        self.seen.append((line, asked))
        while self.mood == mood == "hangs":
            time.sleep(0.05)
        headers = {}
        try:
            if mood == "throttles":
                headers["retry-after"] = "17"
                raise No(429, {"error": "slow_down"})
            if mood == "fails":
                raise No(500, {"error": "internal"})
            path = handler.path.split("?")[0]
            status, said = self.route(line, path, handler.headers, asked)
        except No as no:
            status, said = no.status, no.body
        text = b"" if said is None else json.dumps(said).encode()
        if mood == "garbage":
            status, text = 200, b"<html>welcome to the proxy</html>"
        try:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("content-type", "application/json")
            if status != 204:
                handler.send_header("content-length", str(len(text)))
            # Before the last byte leaves: whoever has the answer finds it counted.
            self.spent += time.perf_counter() - began
            handler.end_headers()
            handler.wfile.write(text)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass

    def route(self, line, path, headers, asked):
        given = headers.get("authorization", "")
        given = re.sub("^(bearer|token) ", "", given, flags=re.I)
        if line == "POST /v1/token":
            return self.google_sts(asked)
        if found := re.fullmatch(r"/v1/projects/-/serviceAccounts/([^/]+):generateAccessToken", path):
            return self.google_account(urllib.parse.unquote(found[1]), given, asked)
        if line.startswith("GET /storage/v1/b/") or line.startswith("GET /subscriptions"):
            return self.resource(path, given)
        if found := re.fullmatch(r"/([^/]+)/oauth2/v2.0/token", path):
            return self.entra_token(found[1], asked)
        if path == f"/{TENANT}/v2.0/.well-known/openid-configuration":
            return 200, {"issuer": f"https://login.microsoftonline.com/{TENANT}/v2.0"}
        if path.startswith(("/app", "/installation", "/repos/")):
            return self.github(line.split("?")[0], given, asked)
        raise No(404, {"message": "Not Found"})

    def give(self, prefix, what, lives):
        token = f"{prefix}{len(self.tokens):040d}"
        self.tokens[token] = what | {"ends": time.time() + lives}
        return token

    def known(self, token):
        found = self.tokens.get(token)
        return found if found and found["ends"] > time.time() else None

    def resource(self, path, given):
        """Something that a token of a cloud reads."""
        found = self.known(given)
        if not found:
            raise google(401, "UNAUTHENTICATED", "Invalid Credentials")
        return 200, {"path": path, "as": found.get("account") or found.get("client_id") or found.get("sub")}

    def verify(self, token, algorithms, audience):
        """The claims of an assertion: signature by the published keys, then everything else."""
        header = jwt.get_unverified_header(token)
        if header["alg"] not in algorithms or not header.get("kid") or set(header) - {"alg", "typ", "kid"}:
            raise ValueError(f"header {header}")
        keys = requests.get(self.keys, timeout=5).json()["keys"]
        for key in keys:
            if set(key) - JWK_MEMBERS:
                raise ValueError(f"a key has {set(key) - JWK_MEMBERS}")
        [key] = [key for key in keys if key["kid"] == header["kid"]]
        claims = jwt.decode(
            token, jwt.PyJWK(key), algorithms=algorithms, audience=audience, issuer=self.issuer,
            options={"require": ["iss", "sub", "aud", "exp", "iat"]},
        )
        if claims["iat"] > time.time() or claims["iat"] < time.time() - 86_400 or claims["exp"] - claims["iat"] > 600:
            raise ValueError("times")
        return claims

    def google_sts(self, asked):
        wanted = {
            "grant_type": EXCHANGE, "requested_token_type": TYPE + "access_token", "subject_token_type": TYPE + "jwt",
            "audience": PROVIDER,
        }
        for name, value in wanted.items():
            if asked.get(name) != value:
                raise oauth("invalid_request", f'Invalid value for "{name}".')
        if not asked.get("scope"):
            raise oauth("invalid_scope", "Missing scope.")
        try:
            claims = self.verify(asked["subject_token"], ["RS256", "ES256"], [PROVIDER, "https:" + PROVIDER])
        except (jwt.PyJWTError, ValueError, KeyError) as error:
            raise oauth("invalid_grant", f"Error connecting to or verifying: {error}")
        if not 0 < len(claims["sub"].encode()) <= 127:
            raise oauth("invalid_grant", "The size of mapped attribute google.subject exceeds the 127 bytes limit.")
        what = {"sub": claims["sub"], "role": claims.get("role"), "scope": asked["scope"]}
        token = self.give("ya29.d.", what, 3_599)
        return 200, {
            "access_token": token, "issued_token_type": TYPE + "access_token", "token_type": "Bearer", "expires_in": 3_599,
        }

    def google_account(self, account, given, asked):
        federated = self.known(given)
        if not federated:
            raise google(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if federated["scope"] not in ("https://www.googleapis.com/auth/iam", PLATFORM):
            raise google(403, "PERMISSION_DENIED", "Request had insufficient authentication scopes.")
        # The binding of `roles/iam.workloadIdentityUser` to `attribute.role/deploy`.
        if account != ACCOUNT or federated["role"] != "deploy":
            raise google(403, "PERMISSION_DENIED", "Permission 'iam.serviceAccounts.getAccessToken' denied on resource")
        lifetime = re.fullmatch(r"(\d+)s", asked.get("lifetime", "3600s"))
        if not lifetime or not 0 < int(lifetime[1]) <= 3_600 or not asked.get("scope"):
            raise google(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")
        ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=int(lifetime[1]))
        token = self.give("ya29.c.", {"account": account, "scope": asked["scope"], "sub": federated["sub"]}, int(lifetime[1]))
        return 200, {"accessToken": token, "expireTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def entra_token(self, tenant, asked):
        if tenant != TENANT:
            raise entra(90002, "invalid_request", f"Tenant '{tenant}' not found.")
        if asked.get("grant_type") != "client_credentials" or asked.get("client_assertion_type") != ASSERTION:
            raise entra(900144, "invalid_request", "The request body must contain the following parameter.")
        if asked.get("client_id") != CLIENT:
            raise entra(700016, "unauthorized_client", "Application was not found in the directory.")
        if not asked.get("scope", "").endswith("/.default"):
            raise entra(1002012, "invalid_scope", "The provided value for scope is not valid.")
        try:
            # A token's file ends in a newline, and the SDK sends it along.
            claims = self.verify(asked["client_assertion"].strip(), ["RS256"], ["api://AzureADTokenExchange", "api://cambio-test-sdk"])
        except jwt.InvalidAudienceError:
            raise entra(700212, "invalid_client", "No matching federated identity record found for presented assertion audience.")
        except jwt.ExpiredSignatureError:
            raise entra(700024, "invalid_client", "Client assertion is not within its valid time range.")
        except jwt.InvalidIssuerError:
            raise entra(700211, "invalid_client", "No matching federated identity record found for presented assertion issuer.")
        except (jwt.PyJWTError, ValueError, KeyError) as error:
            raise entra(700027, "invalid_client", f"The certificate or key was not accepted: {error}")
        if claims["sub"] != SUBJECT:
            raise entra(700213, "invalid_client", "No matching federated identity record found for presented assertion subject.")
        token = self.give("eyJ0eXAiOiJKV1Qi.azure.", {"client_id": CLIENT, "scope": asked["scope"]}, 4_242)
        return 200, {"token_type": "Bearer", "expires_in": 4_242, "ext_expires_in": 4_242, "access_token": token}

    def github(self, line, given, asked):
        if line.startswith("GET /repos/") or line.startswith("PUT /repos/"):
            return self.repository(line, given)
        if line == "DELETE /installation/token":
            if not self.tokens.pop(given, None):
                raise No(401, {"message": "Bad credentials", "status": "401"})
            return 204, None
        try:
            claims = jwt.decode(given, self.app_key.public_key(), algorithms=["RS256"], options={"require": ["iss", "iat", "exp"]})
        except jwt.PyJWTError as error:
            raise No(401, {"message": f"A JSON web token could not be decoded: {error}", "status": "401"})
        if claims["exp"] > time.time() + 600:
            raise No(401, {"message": "'Expiration time' claim ('exp') is too far in the future", "status": "401"})
        if claims["iss"] != APP:
            raise No(404, {"message": "Integration not found", "status": "404"})
        has = {"contents": "write", "metadata": "read"}
        if line == "GET /app":
            return 200, {"slug": "cambio-test", "client_id": APP}
        if line == f"GET /app/installations/{INSTALLATION}":
            return 200, {"id": INSTALLATION, "permissions": has}
        if line != f"POST /app/installations/{INSTALLATION}/access_tokens":
            raise No(404, {"message": "Not Found", "status": "404"})
        levels = ["read", "write", "admin"]
        for name, level in asked.get("permissions", has).items():
            if name not in has or levels.index(level) > levels.index(has[name]):
                raise No(422, {"message": "The permissions requested are not granted to this installation."})
        ids = asked.get("repository_ids", list(REPOSITORIES))
        if set(ids) - set(REPOSITORIES):
            raise No(422, {"message": "There is at least one repository that does not exist or is not accessible."})
        permissions = asked.get("permissions", has) | {"metadata": "read"}
        token = self.give("ghs_4711_eyJhbGciOiJFUzI1NiJ9.", {"permissions": permissions, "ids": ids}, 3_600)
        ends = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        return 201, {
            "token": token, "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%SZ"), "permissions": permissions,
            "repository_selection": "selected",
            "repositories": [{"id": each, "name": REPOSITORIES[each]} for each in ids],
        }

    def repository(self, line, given):
        found = self.known(given)
        if not found:
            raise No(401, {"message": "Bad credentials"})
        name = line.split("/")[3]
        if name not in [REPOSITORIES[each] for each in found["ids"]]:
            raise No(404, {"message": "Not Found"})
        if line.startswith("PUT") and found["permissions"].get("contents") != "write":
            raise No(403, {"message": "Resource not accessible by integration"})
        return 200, {"full_name": f"acme/{name}", "permissions": found["permissions"]}
