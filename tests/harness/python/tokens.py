"""Tokens for tests: signs JWTs with openssl, and serves them as a stub of an authorization server.

    tokens.py sign KEY < CLAIMS                    prints a token (alg none without a KEY: -)
    tokens.py jwks KEY                             prints the key as a JSON Web Key Set
    tokens.py serve KEY CERTIFICATE RULES          HTTPS on 127.0.0.1; prints its port, and a line
                                                   for each request

RULES is a file of JSON that is read anew for each request: client_id, client_secret, scope, claims,
lifetime_s, and status, where other than 200. It is a stub: it knows one client and one grant.
"""

import base64
import http.server
import json
import ssl
import subprocess
import sys
import time
import urllib.parse


def encoded(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def sign(key, claims):
    header = {"typ": "JWT", "alg": "RS256" if key else "none"}
    if key:
        header["kid"] = "test"
    parts = [encoded(json.dumps(part).encode()) for part in (header, claims)]
    signature = b""
    if key:
        command = ["openssl", "dgst", "-sha256", "-sign", key]
        signature = subprocess.run(
            command, input=".".join(parts).encode(), capture_output=True, check=True
        ).stdout
    return ".".join(parts + [encoded(signature)])


def jwks(key):
    command = ["openssl", "rsa", "-in", key, "-noout", "-modulus"]
    modulus = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    modulus = bytes.fromhex(modulus.strip().removeprefix("Modulus="))
    return {
        "keys": [
            {
                "kty": "RSA",
                "kid": "test",
                "use": "sig",
                "alg": "RS256",
                "n": encoded(modulus),
                "e": encoded(b"\x01\x00\x01"),
            }
        ]
    }


def answer(key, rules, authorization, form):
    expected = ":".join(urllib.parse.quote_plus(rules[part]) for part in ("client_id", "client_secret"))
    if authorization != "Basic " + base64.b64encode(expected.encode()).decode():
        return 401, {"error": "invalid_client"}
    if form.get("grant_type") != ["client_credentials"]:
        return 400, {"error": "unsupported_grant_type"}
    if form.get("scope") != [rules["scope"]]:
        return 400, {"error": "invalid_scope", "error_description": "this stub knows another one"}
    if rules.get("status", 200) != 200:
        return rules["status"], {"error": "temporarily_unavailable"}
    now = time.time()
    claims = {**rules["claims"], "iat": int(now), "exp": now + rules["lifetime_s"]}
    token = sign(key, claims)
    return 200, {"access_token": token, "token_type": "Bearer", "expires_in": rules["lifetime_s"]}


def serve(key, certificate, rules):
    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with open(rules) as file:
                status, body = answer(
                    key,
                    json.load(file),
                    self.headers["Authorization"],
                    urllib.parse.parse_qs(form),
                )
            print("stub answered", status, body.get("error", "with a token"), flush=True)
            body = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Server", "stub")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("stub of an authorization server at port", server.server_address[1], flush=True)
    server.serve_forever()


def main():
    command, key, *rest = sys.argv[1:]
    if command == "sign":
        print(sign(None if key == "-" else key, json.load(sys.stdin)))
    elif command == "jwks":
        print(json.dumps(jwks(key)))
    elif command == "serve":
        serve(key, *rest)
    else:
        sys.exit(__doc__)


main()
