"""A server before which answers are lost, as a proxy that restarts loses them."""

from __future__ import annotations

import http.client
import http.server
import re
import threading
from urllib.parse import urlsplit


class LosesAnswers(http.server.ThreadingHTTPServer):
    """A proxy that hands everything on, but loses the first answer to each request of these kinds."""

    daemon_threads = True

    def __init__(self, upstream, *kinds):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.kinds = urlsplit(upstream).netloc, list(kinds)
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        super().__exit__(*error)

    def is_lost(self, request):
        found = [kind for kind in self.kinds if re.search(kind, request)]
        self.kinds = [kind for kind in self.kinds if kind not in found]
        return bool(found)


class _Handler(http.server.BaseHTTPRequestHandler):
    def hand_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "accept-encoding")}
        upstream.request(self.command, self.path, body, kept)
        answer = upstream.getresponse()
        content = answer.read()
        lost = self.server.is_lost(f"{self.command} {self.path}")
        self.send_response(502 if lost else answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.end_headers()
        self.wfile.write(b"the answer is lost" if lost else content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = hand_on

    def log_message(self, *_):
        pass
