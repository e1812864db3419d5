"""An agent's SPIFFE Workload API as far as JWT-SVIDs go, on the gRPC of its authors: it refuses what the standard says it must, and
keeps an SVID for half its time, as SPIRE's does."""

import json
import time
from concurrent import futures

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec

DOMAIN = "acme.example"
ISSUER = "https://spire.acme.example"
LIFETIME = 120


class Agent:
    """Whoever may open the socket has the identities that stand in `paths`."""

    def __init__(self, folder):
        self.socket = folder / "agent.sock"
        self.paths, self.cache, self.asked = [], {}, 0
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        public.pop("key_ops", None)
        authority = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
        # A bundle as servers of trust domains write it, with keys that are not for JWTs.
        self.bundle = {
            "keys": [authority | {"use": "x509-svid"}, public | {"use": "jwt-svid", "kid": "standin"}],
            "spiffe_sequence": 1, "spiffe_refresh_hint": 300,
        }
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        handler = grpc.unary_unary_rpc_method_handler(self.fetch)
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {"FetchJWTSVID": handler})])
        self.server.add_insecure_port(f"unix://{self.socket}")
        self.server.start()

    def fetch(self, request, context):
        self.asked += 1
        if dict(context.invocation_metadata()).get("workload.spiffe.io") != "true":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "security header missing from request")
        asked = decoded(request)
        if not asked.get(1) or 2 in asked:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "audience must be specified")
        if not self.paths:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        return b"".join(field(1, self.svid(path, asked[1])) for path in self.paths)

    def svid(self, path, audience):
        now, key = int(time.time()), (path, tuple(audience))
        made, token = self.cache.get(key, (0, None))
        spiffe_id = f"spiffe://{DOMAIN}/{path}"
        if now - made > LIFETIME / 2:
            claims = {"aud": audience, "exp": now + LIFETIME, "iat": now, "iss": ISSUER, "sub": spiffe_id}
            token = jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "standin"})
            self.cache[key] = (now, token)
        return field(1, spiffe_id.encode()) + field(2, token.encode())

    def stop(self):
        self.server.stop(None).wait(10)


def field(number, value):
    """A length-delimited field of Protocol Buffers."""
    length, rest = b"", len(value)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + value


def decoded(message):
    """Number → texts, of a message that has nothing else."""
    found = {}
    while message:
        tag, length, shift, at = message[0], 0, 0, 1
        assert tag & 7 == 2, "only texts are expected"
        while True:
            byte, at = message[at], at + 1
            length, shift = length | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        found.setdefault(tag >> 3, []).append(message[at:at + length].decode())
        message = message[at + length:]
    return found
