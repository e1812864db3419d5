"""Clients that nobody here wrote complete an exchange against `cambio dev` and verify the result by discovery."""

import json
import os
import pathlib
import subprocess

import jwt
import requests
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt as jose
from joserfc.jwk import KeySet

from support import CAMBIO, EXCHANGE, JWT, Tally

tally = Tally()
dev = subprocess.Popen([CAMBIO, "dev", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
pathlib.Path(os.environ.get("CAMBIO_TEST_WORK", "/tmp"), "dev.pid").write_text(str(dev.pid))
try:
    told = json.loads(dev.stdout.readline())
    url = told["broker"].rstrip("/")
    for visit in told["visits"][:3]:
        provider = visit["platform"]
        # The lines that `dev` prints for people: what fetches a fresh token is all before the exchange itself.
        fetch = visit["again"].replace("\\\n", " ").split("| curl")[0]
        subject = subprocess.run(["sh", "-c", fetch], capture_output=True, text=True, timeout=10, check=True).stdout
        subject = subject.strip().removeprefix("subject_token=")
        audience = visit["outcome"]["issued"]["aud"]
        discovered = requests.get(f"{url}/.well-known/oauth-authorization-server", timeout=5).json()

        # authlib makes the request as it would to any OAuth server.
        session = OAuth2Session(client_id="journey", token_endpoint_auth_method="none")
        issued = session.fetch_token(
            discovered["token_endpoint"], grant_type=EXCHANGE, subject_token=subject, subject_token_type=JWT,
            audience="jwt/orders",
        )
        tally.check(f"authlib exchanges a {provider} token", "access_token" in issued, issued)

        # PyJWT fetches our keys by itself.
        keys = jwt.PyJWKClient(discovered["jwks_uri"])
        key = keys.get_signing_key_from_jwt(issued["access_token"])
        claims = jwt.decode(
            issued["access_token"], key.key, algorithms=["ES256"], audience=audience, issuer=discovered["issuer"],
            options={"require": ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"]},
        )
        tally.check(f"PyJWT verifies it by discovery, for {claims['sub']}", claims["sub"].startswith(f"{provider}:"))

        # joserfc, a third implementation, agrees.
        jwks = KeySet.import_key_set(requests.get(discovered["jwks_uri"], timeout=5).json())
        token = jose.decode(issued["access_token"], jwks, algorithms=["ES256"])
        tally.check("joserfc verifies it too, with the type of RFC 9068", token.header["typ"] == "at+jwt", token.header)

    changed = issued["access_token"][:-8] + ("AAAAAAAA" if not issued["access_token"].endswith("AAAAAAAA") else "BBBBBBBB")
    try:
        jwt.decode(changed, key.key, algorithms=["ES256"], audience=audience)
        tally.check("a changed signature is refused", False)
    except jwt.InvalidSignatureError:
        tally.check("a changed signature is refused", True)
finally:
    dev.terminate()
    dev.wait(20)
tally.end()
