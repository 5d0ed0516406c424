"""A server on 127.0.0.1 that speaks the protocol of the Hugging Face hub, and misbehaves on demand.

    python3 hub_server.py FOLDER

FOLDER/world.json says what there is and how it behaves, and is read anew for every request:

    {"repos": {"org/tiny": {"commit": "<40 hex digits>", "revisions": ["main", "refs/pr/1"], "files": {"config.json": {..}}}}}

A file has "text", "path" (of a file with its bytes) or "size" (then its bytes are a fixed pattern), and "lfs": its bytes are on a second server, its etag is their
SHA-256; else its etag is git's SHA-1 of a blob. What may be wrong with a file, by key:

    etag, size_header     other headers than the right ones          ignore_range   200 and the whole for any range
    cut_at: [N, ..]       the connection breaks after N bytes, once  shift_range    a range begins elsewhere than asked
    fail: [503, ..]       these statuses first                       content        other bytes than the etag's
    stall                 seconds of silence in the middle           unsatisfied    416 for any range
    content_length        another Content-Length                     endless        bytes without end

What may be wrong with a repository: "listing" (the text of the answer, or {"repeat": text, "times": N}), "gated", "private",
"fail", "token" (which it wants), "renamed" (to which id), "redirect_to" (where files are instead of the second server),
"no_commit" (no X-Repo-Commit).

It writes "PORT PORT" of its two servers to FOLDER/ports once it listens, and a line "SERVER METHOD PATH RANGE AUTHORIZATION STATUS"
to FOLDER/requests for every request.
"""

import hashlib
import http.server
import json
import os
import pathlib
import socket
import sys
import threading
import time
import urllib.parse

FOLDER = pathlib.Path(sys.argv[1])
lock = threading.Lock()
used = {}  # (repository, file, key): how many of a list's entries have been used up


def pattern(size):
    """`size` bytes that differ from each other wherever a mistake of position would show."""
    period = bytes((i * 7 + i // 251) % 256 for i in range(64257))
    return (period * (size // len(period) + 1))[:size]


def content(file):
    if "path" in file:
        return pathlib.Path(file["path"]).read_bytes()
    return file["text"].encode() if "text" in file else pattern(file["size"])


def etag(file):
    if "etag" in file:
        return file["etag"]
    data = content(file)
    if file.get("lfs"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def next_of(key, values):
    with lock:
        index = used.get(key, 0)
        if index >= len(values):
            return None
        used[key] = index + 1
        return values[index]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = "hub"

    def log_message(self, *_):
        pass

    def note(self, status):
        line = " ".join([self.name, self.command, self.path, self.headers.get("Range", "-"),
                         self.headers.get("Authorization", "-").replace(" ", "_"), str(status)])
        with lock, open(FOLDER / "requests", "a") as log:
            log.write(line + "\n")

    def answer(self, status, headers=(), body=b""):
        self.note(status)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code=None, message=None):
        headers = [(name, value) for name, value in (("X-Error-Code", code), ("X-Error-Message", message)) if value]
        self.answer(status, headers, b"no")

    def repository(self, repo_id):
        """The repository; None if it was refused."""
        world = json.loads((FOLDER / "world.json").read_text())
        repo = world["repos"].get(repo_id)
        token = self.headers.get("Authorization")
        if repo is None or (repo.get("private") and token is None):
            self.refuse(401, "RepoNotFound", "Repository not found")
        elif repo.get("token") and token is not None and token != "Bearer " + repo["token"]:
            self.refuse(401, None, "Invalid credentials in Authorization header")
        elif "fail" in repo and (status := next_of((repo_id, "fail"), repo["fail"])) is not None:
            self.answer(status, [("Retry-After", "0")])
        else:
            return repo
        return None

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path).path.split("/")[1:]
        if parts[:2] == ["api", "models"]:
            self.get_listing(parts[2:])
        elif parts[0] == "blob":
            self.get_blob(urllib.parse.unquote("/".join(parts[1:3])), urllib.parse.unquote("/".join(parts[3:])))
        elif "resolve" in parts:
            at = parts.index("resolve")
            self.get_file("/".join(parts[:at]), urllib.parse.unquote(parts[at + 1]),
                          urllib.parse.unquote("/".join(parts[at + 2:])))
        else:
            self.refuse(404)

    def get_listing(self, parts):
        at = parts.index("tree") if "tree" in parts else parts.index("revision") if "revision" in parts else len(parts)
        repo_id = "/".join(parts[:at])
        revision = urllib.parse.unquote(parts[at + 1]) if at + 1 < len(parts) else "main"
        repo = self.repository(repo_id)
        if repo is None:
            return
        if "renamed" in repo:
            self.answer(307, [("Location", "/api/models/" + "/".join([repo["renamed"]] + parts[at:]))])
        elif revision not in repo.get("revisions", ["main"]) + [repo["commit"]]:
            self.refuse(404, "RevisionNotFound", "Invalid rev id: " + revision)
        elif "listing" in repo:
            text = repo["listing"]
            self.answer(200, [], (text if isinstance(text, str) else text["repeat"] * text["times"]).encode())
        elif at < len(parts) and parts[at] == "tree":
            entries = []
            for name, file in repo["files"].items():
                data = content(file)
                entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                if file.get("lfs"):
                    entry["lfs"] = {"oid": etag(file), "size": len(data), "pointerSize": 130}
                entries.append(entry)
            self.answer(200, [("Content-Type", "application/json")], json.dumps(entries).encode())
        else:
            listing = {"id": repo_id, "sha": repo["commit"], "siblings": [{"rfilename": name} for name in repo["files"]],
                       "private": False, "downloads": 0, "likes": 0, "tags": []}
            self.answer(200, [("Content-Type", "application/json")], json.dumps(listing).encode())

    def get_file(self, repo_id, revision, name):
        repo = self.repository(repo_id)
        if repo is None:
            return
        commit = [] if repo.get("no_commit") else [("X-Repo-Commit", repo["commit"])]
        if "renamed" in repo:
            self.answer(307, [("Location", "/%s/resolve/%s/%s" % (repo["renamed"], revision, name))])
            return
        if repo.get("gated"):
            self.refuse(403 if "Authorization" in self.headers else 401, "GatedRepo", "Access to model %s is restricted." % repo_id)
            return
        file = repo["files"].get(name)
        if file is None:
            self.answer(404, commit + [("X-Error-Code", "EntryNotFound"), ("X-Error-Message", "Entry not found")])
            return
        data = content(file)
        if file.get("lfs"):
            to = repo.get("redirect_to", "http://127.0.0.1:%d" % blob_port)
            headers = commit + [("X-Linked-Etag", '"%s"' % etag(file)), ("ETag", '"another"'),
                                ("X-Linked-Size", str(file.get("size_header", len(data)))),
                                ("Location", "%s/blob/%s/%s" % (to, repo_id, urllib.parse.quote(name)))]
            self.answer(302, headers)
        else:
            self.send_bytes(repo_id, name, file, commit + [("ETag", '"%s"' % etag(file))])

    def get_blob(self, repo_id, name):
        world = json.loads((FOLDER / "world.json").read_text())
        self.send_bytes(repo_id, name, world["repos"][repo_id]["files"][name], [])

    def send_bytes(self, repo_id, name, file, headers):
        data = file["content"].encode() if "content" in file else content(file)
        key = (repo_id, name)
        if self.command != "HEAD" and "fail" in file and (status := next_of(key + ("fail",), file["fail"])) is not None:
            self.answer(status, [("Retry-After", "0")])
            return
        first, status = 0, 200
        asked = self.headers.get("Range")
        if asked and not file.get("ignore_range"):
            first = int(asked.removeprefix("bytes=").split("-")[0])
            if first >= len(data) or file.get("unsatisfied"):
                self.answer(416, [("Content-Range", "bytes */%d" % len(data))])
                return
            status = 206
            if file.get("shift_range"):
                first -= 1
            headers = headers + [("Content-Range", "bytes %d-%d/%d" % (first, len(data) - 1, len(data)))]
        if file.get("endless"):
            self.note(status)
            self.send_response(status)
            for pair in headers:
                self.send_header(*pair)
            self.send_header("Connection", "close")
            self.end_headers()
            try:
                while self.command != "HEAD":
                    self.wfile.write(data)
            except OSError:
                pass
            self.close_connection = True
            return
        length = file.get("content_length", len(data) - first) if self.command != "HEAD" else file.get("size_header", len(data))
        self.note(status)
        self.send_response(status)
        for pair in headers + [("Content-Length", str(length))]:
            self.send_header(*pair)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = next_of(key + ("cut_at",), file["cut_at"]) if "cut_at" in file else None
        body = data[first:]
        try:
            if cut is not None and cut < len(body):
                self.wfile.write(body[:cut])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if "stall" in file:
                self.wfile.write(body[:len(body) // 2])
                self.wfile.flush()
                time.sleep(file["stall"])
                body = body[len(body) // 2:]
            self.wfile.write(body)
        except OSError:
            pass  # the client had enough
        if "content_length" in file:
            self.close_connection = True


class BlobHandler(Handler):
    name = "blobs"


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


def until_orphaned():
    """Ends with the test that started it, however that ended."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(0)


hub = Server(("127.0.0.1", 0), Handler)
blobs = Server(("127.0.0.1", 0), BlobHandler)
blob_port = blobs.server_address[1]
threading.Thread(target=blobs.serve_forever, daemon=True).start()
threading.Thread(target=until_orphaned, daemon=True).start()
(FOLDER / "ports.tmp").write_text("%d %d" % (hub.server_address[1], blob_port))
(FOLDER / "ports.tmp").rename(FOLDER / "ports")
hub.serve_forever()
