"""A running service, an access key for it, and an agent that follows it, for the scripts beside this one.

What is signed here is signed by Python's own library, so that the service's signatures are checked by another hand than its own.
"""
import datetime
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import urllib.parse
import uuid

REGION = "cn-hangzhou"


def sign(secret, method, path, query, headers, body):
    """The value of the Authorization header, without its Credential."""
    encode = lambda text: urllib.parse.quote(str(text), safe="-._~")
    canonical_query = "&".join(f"{encode(name)}={encode(value)}" for name, value in sorted(query.items()))
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    digest = hashlib.sha256(body).hexdigest()
    request = f"{method}\n{path}\n{canonical_query}\n{lines}\n{names}\n{digest}"
    text = "ACS3-HMAC-SHA256\n" + hashlib.sha256(request.encode()).hexdigest()
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return canonical_query, names, signature


class Service:
    """`flowlog serve` on a data folder of its own and any free port."""

    def __init__(self, config=""):
        self._folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self._folder.name)
        self.data = folder / "data"
        file = folder / "flowlog.toml"
        file.write_text(config or "requests-per-second = 100000\nrequests-at-once = 100000\n")
        self._options = [os.environ["FLOWLOG_BIN"], "serve", "--data-dir", str(self.data), "--config", str(file)]
        self.start("127.0.0.1:0")
        self.key = json.loads((self.data / "administrator.json").read_text())

    def start(self, listen):
        self._log = open(pathlib.Path(self._folder.name) / "log", "ab")
        self._process = subprocess.Popen(
            [*self._options, "--listen", listen], stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        for line in self._process.stdout:
            if line.startswith("listening on http://"):
                self.endpoint = line.split("//")[1].strip()
                return
        raise AssertionError(pathlib.Path(self._log.name).read_text())

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def close(self):
        self.kill()
        self._folder.cleanup()

    def call(self, method, path, query=None, body=None, key=None, timeout=70):
        """A request to the REST face or the agent protocol: status and body."""
        key, query = key or self.key, query or {}
        data = b"" if body is None else json.dumps(body).encode()
        headers = {
            "host": self.endpoint,
            "x-acs-content-sha256": hashlib.sha256(data).hexdigest(),
            "x-acs-date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": uuid.uuid4().hex,
        }
        canonical_query, names, signature = sign(key["secret"], method, path, query, headers, data)
        headers["authorization"] = (
            f"ACS3-HMAC-SHA256 Credential={key['id']},SignedHeaders={names},Signature={signature}"
        )
        connection = http.client.HTTPConnection(self.endpoint, timeout=timeout)
        try:
            connection.request(method, f"{path}?{canonical_query}", data, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def access_key(self, role):
        status, key = self.call("POST", "/api/v1/access-keys", body={"role": role})
        assert status == 200, key
        return key

    def audit(self, resource_id):
        return self.call("GET", "/api/v1/audit", {"resource_id": resource_id})[1]["entries"]


class Agent:
    """An agent that applies whatever it is told, as soon as it is told, unless it is held."""

    def __init__(self, service, host="host-1", vpc="vpc-1", enis=("eni-1", "eni-2"), vswitch="vsw-1"):
        self._service, self._host = service, host
        self._enis = [
            {"eni_id": eni, "vswitch_id": vswitch, "vpc_id": vpc, "account_id": "1", "captured": True} for eni in enis
        ]
        self.key = service.access_key("agent")
        self.go = threading.Event()
        self.go.set()
        self._ended = False
        self.deliveries = {}
        self.state = {"version": 0, "flow_logs": []}
        self.report(0)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def report(self, applied):
        flow_logs = [
            {
                "flow_log_id": log["flow_log_id"],
                "version": applied,
                "deliver_status": "FAILED" if log["flow_log_id"] in self.deliveries else "SUCCESS",
                "deliver_error_message": self.deliveries.get(log["flow_log_id"], ""),
            }
            for log in self.state["flow_logs"]
        ]
        body = {
            "host_id": self._host,
            "agent_version": "test",
            "enis": self._enis,
            "applied_version": applied,
            "flow_logs": flow_logs,
        }
        status, answer = self._service.call("POST", "/agent/v1/report", body=body, key=self.key)
        assert status == 200, answer
        return answer

    def _follow(self):
        while not self._ended:
            query = {"after": self.state["version"], "wait": 1}
            try:
                status, state = self._service.call("GET", "/agent/v1/desired-state", query, key=self.key)
            except OSError:
                continue
            if self._ended or status != 200:
                continue
            self.go.wait()
            if state["version"] != self.state["version"]:
                self.state = state
                self.report(state["version"])

    def close(self):
        self._ended = True
        self.go.set()
        self._thread.join()
