"""An external authorizer by HTTP, written as one writes it with Python's http.server: HEAD is GET, so
that it gets a body, too; bodies of requests are not read.

authorizer.py HOST PORT: allows paths that end in /ok, as the user alice; breaks off where a path is
longer than it takes; denies the rest, with what follows ?q= as the body.
"""

import http.server
import sys
import time
from urllib.parse import unquote

LONGEST = 3000


class Authorizer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        print(self.command, self.path[:100], flush=True)
        if len(self.path) > LONGEST:
            self.close_connection = True
            return
        path, _, said = self.path.partition("?q=")
        body = unquote(said).encode()
        is_allowed = path.endswith("/ok")
        self.send_response(200 if is_allowed else 403)
        if is_allowed:
            self.send_header("X-Auth-User", "alice")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            # The network does this by chance.
            time.sleep(0.01)
        self.wfile.write(body)

    do_HEAD = do_GET
    do_POST = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Authorizer)
print("listening", flush=True)
server.serve_forever()
