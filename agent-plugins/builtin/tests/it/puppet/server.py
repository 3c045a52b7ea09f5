"""A Puppet server as small as an agent lets it be, for tests.

usage: server.py DIRECTORY

Speaks the parts of Puppet's HTTP API (v3) that one run of an agent needs, over TLS with certificates
on both sides. The directory holds `ca.pem`, `crl.pem`, `server.pem`, `server.key` and, for each
environment, `catalogs/ENVIRONMENT.json`, or `catalogs/ENVIRONMENT.error` with the text of an error.
Writes the port that it listens on to `port`, what it was asked for to `requests`, and the last
report to `report.json`. Ends when its standard input does.
"""

import http.server
import json
import os
import ssl
import sys
import threading
import urllib.parse

ROOT = sys.argv[1]


def path(name):
    return os.path.join(ROOT, name)


# Plugins are synchronised from a directory in which there is nothing.
EMPTY_DIRECTORY = {
    "path": "/nowhere",
    "relative_path": ".",
    "links": "follow",
    "owner": 0,
    "group": 0,
    "mode": 0o755,
    "checksum": {"type": "ctime", "value": "{ctime}2026-01-01 00:00:00 UTC"},
    "type": "directory",
    "destination": None,
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        with open(path("requests"), "a", encoding="utf-8") as file:
            file.write(f"{self.command} {self.path}\n")

    def answer(self, status, data, kind="application/json"):
        body = data.encode() if isinstance(data, str) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Puppet-Version", "7.0.0")
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(url.query)
        name = url.path.rsplit("/", 1)[-1]
        if url.path.startswith("/puppet/v3/node/"):
            self.answer(200, {"name": name, "parameters": {}, "environment": query["environment"][0]})
        elif url.path.startswith("/puppet/v3/file_metadatas/"):
            self.answer(200, [EMPTY_DIRECTORY])
        elif url.path.startswith("/puppet-ca/v1/certificate_revocation_list/"):
            with open(path("crl.pem"), encoding="utf-8") as file:
                self.answer(200, file.read(), "text/plain")
        else:
            self.answer(404, "there is no such thing", "text/plain")

    def do_POST(self):
        form = urllib.parse.parse_qs(self.body().decode())
        name = urllib.parse.urlparse(self.path).path.rsplit("/", 1)[-1]
        environment = form["environment"][0]
        for ending, respond in ((".json", self.catalog), (".error", self.error)):
            file = path(os.path.join("catalogs", environment + ending))
            if os.path.exists(file):
                with open(file, encoding="utf-8") as content:
                    return respond(content.read(), name, environment)
        return self.error(f"there is no environment {environment}", name, environment)

    def catalog(self, text, name, environment):
        self.answer(200, {**json.loads(text), "name": name, "environment": environment})

    def error(self, text, _name, _environment):
        self.answer(500, {"message": f"Server Error: {text}", "issue_kind": "RUNTIME_ERROR"})

    def do_PUT(self):
        with open(path("report.json"), "wb") as file:
            file.write(self.body())
        self.answer(200, [])


def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path("server.pem"), path("server.key"))
    context.load_verify_locations(path("ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with open(path("port.new"), "w", encoding="utf-8") as file:
        file.write(str(server.server_address[1]))
    os.rename(path("port.new"), path("port"))
    sys.stdin.read()


main()
