"""An OpenID Connect issuer with the code flow and PKCE, on loopback; each code works once."""

import asyncio
import json
from base64 import b64decode
from hashlib import sha256
from urllib.parse import parse_qs, urlencode, urlsplit

from service.auth.issuer import Issuer, KeyFile
from service.http import base64url
from tests.processes import free_port

CLIENT = "tally-web"
SECRET = "an issuer's secret"


class CodeIssuer:
    """Signs people in without asking. `grants` is what the next access token says."""

    def __init__(self, folder, host="127.0.0.1"):
        self.port = free_port()
        self.url = f"http://{host}:{self.port}"
        self._issuer = Issuer(self.url, KeyFile(folder))
        self._codes = {}
        self.grants = {"subject": "ann", "scopes": ["metrics:read"]}
        self.named = self.url
        self.broken = None

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self):
        self._server.close()
        await self._server.wait_closed()

    def authorize(self, address):
        """What the browser does at the issuer: the query of the callback that it is sent to."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        code = f"code-{len(self._codes)}"
        self._codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": self.url}, asked

    async def _serve(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in head.split("\r\n")[1:]}
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        path = head.split(" ")[1]
        if path.startswith("/authorize?"):
            query, asked = self.authorize(path)
            writer.write(
                f"HTTP/1.1 302 X\r\nLocation: {asked['redirect_uri']}?{urlencode(query)}\r\n".encode()
            )
            writer.write(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            writer.close()
            return
        status, answer = self._answer(path, body.decode(), fields)
        content = json.dumps(answer).encode()
        start = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        writer.write(start.encode() + content)
        await writer.drain()
        writer.close()

    def _answer(self, path, body, fields):
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.named,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
            }
        if path == "/jwks":
            return 200, self._issuer.jwks()
        if self.broken is not None:
            return 200, self.broken
        form = {name: values[0] for name, values in parse_qs(body).items()}
        asked = self._codes.pop(form.get("code", ""), None)
        proof = base64url.encode(sha256(form.get("code_verifier", "").encode()).digest()).decode()
        basic = b64decode(fields.get("authorization", "").removeprefix("Basic ")).decode()
        if asked is None or proof != asked["code_challenge"] or basic != f"{CLIENT}:{SECRET}":
            return 400, {"error": "invalid_grant"}
        granted = self._issuer.sign(self.grants["subject"], self.grants["scopes"], audience=CLIENT)
        return 200, {"access_token": granted, "token_type": "Bearer", "id_token": "unread"}
