"""A small server that speaks the Hub's protocol to the unmodified huggingface_hub client."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"


@dataclass
class Repository:
    files: dict[str, bytes]
    private: bool = False
    branch: str = "main"

    @property
    def commit(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name, data in sorted(self.files.items()):
            digest.update(name.encode() + data)
        return digest.hexdigest()


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Faults:
    """What goes wrong, until it is taken back.

    Attributes:
        status: answer everything with this status.
        drop_once_after: close the connection after that many bytes of a large file, once.
        large_files_left: large files that are served before the storage goes down.
        flip: invert the first byte of large files.
    """

    status: int | None = None
    drop_once_after: int | None = None
    large_files_left: int | None = None
    flip: bool = False


class HubServer:
    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.faults = Faults()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        # large files lie on another host, to which the client does not follow with HEAD
        self.storage = f"http://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.repositories.clear()
        self.large.clear()
        self.requests.clear()
        self.faults = Faults()

    def publish(self, repo_id: str, files: dict[str, bytes], *, private: bool = False) -> str:
        self.repositories[repo_id] = Repository(dict(files), private)
        for data in files.values():
            self.large[hashlib.sha256(data).hexdigest()] = data
        return self.repositories[repo_id].commit


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: int | None = None

    @classmethod
    def of_json(cls, content: Any, status: int = 200) -> Answer:
        return cls(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    @classmethod
    def of_error(cls, status: int, code: str) -> Answer:
        return cls(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})


def is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(Request(self.command, path, dict(self.headers)))
            if hub.faults.status is not None:
                answer = Answer(hub.faults.status)
            else:
                answer = self.route(path, body)
            self.send_response(answer.status)
            headers = {"Content-Length": str(len(answer.body))} | answer.headers
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if answer.drop_after is not None:
                self.wfile.write(answer.body[: answer.drop_after])
                self.close_connection = True
                return
            self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = handle_request

        def route(self, path: str, body: bytes) -> Answer:
            if match := re.fullmatch(r"/cdn/(\w+)", path):
                return self.large_file(match[1])
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                return self.in_repository(match[1], match[2], self.info)
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
                return self.in_repository(match[1], match[2], self.tree)
            if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                name = match[3]
                return self.in_repository(match[1], match[2], lambda repo: self.file(repo, name))
            return self.upload(path, body)

        def in_repository(self, repo_id: str, revision: str | None, then: Any) -> Answer:
            repository = hub.repositories.get(repo_id)
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if repository is None or (repository.private and token != TOKEN):
                return Answer.of_error(401, "RepoNotFound")
            if revision not in (None, repository.branch, repository.commit):
                return Answer.of_error(404, "RevisionNotFound")
            return then(repository)

        def info(self, repository: Repository) -> Answer:
            siblings = [{"rfilename": name} for name in repository.files]
            repo_id = next(k for k, v in hub.repositories.items() if v is repository)
            content = {"id": repo_id, "modelId": repo_id, "sha": repository.commit}
            return Answer.of_json(content | {"siblings": siblings, "private": repository.private})

        def tree(self, repository: Repository) -> Answer:
            entries = []
            for name, data in repository.files.items():
                oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                entry = {"type": "file", "path": name, "size": len(data), "oid": oid}
                if is_large(name):
                    sha256 = hashlib.sha256(data).hexdigest()
                    entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
                entries.append(entry)
            return Answer.of_json(entries)

        def file(self, repository: Repository, name: str) -> Answer:
            data = repository.files.get(name)
            if data is None:
                return Answer.of_error(404, "EntryNotFound")
            headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
            if is_large(name):
                sha256 = hashlib.sha256(data).hexdigest()
                headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
                return Answer(302, b"", headers | {"Location": f"{hub.storage}/cdn/{sha256}"})
            etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            headers |= {"ETag": f'"{etag}"', "Content-Length": str(len(data))}
            return Answer(200, data, headers)

        def large_file(self, sha256: str) -> Answer:
            data = hub.large[sha256]
            if hub.faults.large_files_left is not None:
                if hub.faults.large_files_left == 0:
                    return Answer(503)
                hub.faults.large_files_left -= 1
            drop_after, hub.faults.drop_once_after = hub.faults.drop_once_after, None
            if hub.faults.flip:
                data = bytes([data[0] ^ 255]) + data[1:]
            headers = {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"}
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if match is None:
                return Answer(200, data, headers, drop_after)
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return Answer(206, data[start:], headers)

        def upload(self, path: str, body: bytes) -> Answer:
            if path == "/api/validate-yaml":
                return Answer.of_json({"errors": [], "warnings": []})
            if path == "/api/repos/create":
                asked = json.loads(body)
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return Answer.of_error(401, "Unauthorized")
                repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
                if repo_id in hub.repositories:
                    exists = {"error": "You already created this model repo"}
                    return Answer.of_json(exists | {"url": f"{hub.address}/{repo_id}"}, 409)
                private = bool(asked.get("private")) or asked.get("visibility") == "private"
                hub.repositories[repo_id] = Repository({}, private)
                return Answer.of_json({"url": f"{hub.address}/{repo_id}"})
            if re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", path):
                asked = json.loads(body)["files"]
                modes = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                        "shouldIgnore": False,
                    }
                    for file in asked
                ]
                return Answer.of_json({"files": modes})
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    {
                        "oid": item["oid"],
                        "size": item["size"],
                        "actions": {"upload": {"href": f"{hub.address}/lfs/{item['oid']}"}},
                    }
                    for item in json.loads(body)["objects"]
                ]
                return Answer.of_json({"transfer": "basic", "objects": objects})
            if match := re.fullmatch(r"/lfs/(\w+)", path):
                hub.large[match[1]] = body
                return Answer()
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
                return self.commit(match[1], body)
            return Answer.of_error(404, "NotFound")

        def commit(self, repo_id: str, body: bytes) -> Answer:
            files = hub.repositories[repo_id].files
            for line in body.splitlines():
                action = json.loads(line)
                value = action["value"]
                if action["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif action["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                elif action["key"] == "deletedFile":
                    del files[value["path"]]
            commit = hub.repositories[repo_id].commit
            address = f"{hub.address}/{repo_id}/commit/{commit}"
            return Answer.of_json({"commitUrl": address, "commitOid": commit})

        def log_message(self, *_: object) -> None:
            return None

    return Handler
