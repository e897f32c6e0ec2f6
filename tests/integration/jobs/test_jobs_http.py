"""The job API as a client in any language sees it: statuses, problems that name the field, the worker protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairway.api.app import Services, create_app
from fairway.api.server import serve
from fairway.jobs import Tasks
from fairway.jobs.http import Address, HttpClient
from fairway.jobs.job import JobFilter
from fairway.jobs.service import JobService
from fairway.jobs.store import StoreOptions
from fairway.jobs.stores.memory import MemoryStore

pytestmark = pytest.mark.integration


class Api:
    """Calls the API and decodes answers."""

    def __init__(self, url: str, service: JobService) -> None:
        self.url = url
        self.service = service
        self.client = HttpClient(Address(url, "t0ken"))

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        status, answer = await self.client.call(method, path, data)
        return status, json.loads(answer) if answer else None


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    tasks = Tasks()

    @tasks.task
    async def send(to: str, copies: int = 1) -> None: ...

    store = MemoryStore(StoreOptions(max_payload=1_000))
    async with JobService(store, tasks=tasks, queues=["mail", "default"]) as service:
        app = create_app(Services(jobs=service, token="t0ken"))
        async with serve(app, host="127.0.0.1", port=0) as (host, port):
            made = Api(f"http://{host}:{port}", service)
            yield made
            made.client.close()
            service.drain()


JOB = {"kind": "send", "args": {"to": "ann"}}


async def test_a_worker_needs_only_http(api: Api) -> None:
    status, answer = await api.call("POST", "/v1/queues/mail/jobs", JOB)
    assert status == 201
    assert answer == {"ids": [1], "duplicates": [], "batch": None, "durability": "memory"}
    status, answer = await api.call("POST", "/v1/queues/mail:lease", {"worker": "w", "lease_s": 5})
    (lease,) = answer["jobs"]
    assert (lease["id"], lease["fence"], lease["args"]) == (1, 1, {"to": "ann"})
    assert await api.call("POST", "/v1/jobs/1:heartbeat", {"fence": 1, "lease_s": 5}) == (200, {"verdict": "ok"})
    assert await api.call("POST", "/v1/jobs/1:progress", {"fence": 1, "value": 0.5}) == (200, {"verdict": "ok"})
    status, problem = await api.call("POST", "/v1/jobs/1:progress", {"fence": 1, "value": 0.5, "note": "x" * 1001})
    assert (status, problem["field"]) == (422, "note")
    status, _ = await api.call("GET", "/v1/jobs/1/result?wait=1ms")
    assert status == 202
    waiting = asyncio.create_task(api.call("GET", "/v1/jobs/1/result?wait=10s"))
    done = {"fence": 1, "result": {"sent": True}}
    assert await api.call("POST", "/v1/jobs/1:complete", done) == (200, {"verdict": "ok"})
    assert await api.call("POST", "/v1/jobs/1:complete", done) == (200, {"verdict": "ok"}), "again is fine"
    assert await waiting == (200, {"id": 1, "state": "completed", "result": {"sent": True}})


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/v1/queues/mail/jobs", {**JOB, "delay_s": -1}, 422, "delay_s"),
        ("/v1/queues/mail/jobs", {**JOB, "priority": "high"}, 422, "$.priority"),
        ("/v1/queues/mail/jobs", {**JOB, "nonsense": 1}, 422, "$.nonsense"),
        ("/v1/queues/mail/jobs", {**JOB, "queue": "other"}, 422, "queue"),
        ("/v1/queues/mail/jobs", {**JOB, "kind": "nope"}, 422, "kind"),
        ("/v1/queues/mail/jobs", {"kind": "send", "args": {"to": 5}}, 422, "args.to"),
        ("/v1/queues/mail/jobs", {"kind": "send", "args": {"to": "x" * 2_000}}, 413, "args"),
        ("/v1/queues/mail/jobs", b'{"kind": ', 400, ""),
        ("/v1/queues/mail/jobs", b"\xff\xfe", 400, ""),
        ("/v1/queues/mail/jobs", b'{"kind": "send", "args": {"to": "\xff"}}', 400, ""),
        ("/v1/queues/mail/jobs", b'{"kind": "send", "args": ' + b"[" * 501 + b"]" * 501 + b"}", 422, "args"),
        ("/v1/queues/mail/jobs:batch", b'{"jobs": [{"kind": "send", "args": "\xff"}]}', 400, ""),
        ("/v1/jobs/77:complete", b'{"fence": 1, "result": "\xff"}', 400, ""),
        ("/v1/queues/nowhere/jobs", JOB, 422, "queue"),
        ("/v1/queues/mail/jobs:batch", {"jobs": []}, 422, "jobs"),
        ("/v1/queues/mail/jobs:batch", {"jobs": [JOB, {**JOB, "max_attempts": 0}]}, 422, "jobs[1].max_attempts"),
        ("/v1/queues/mail:lease", {"worker": "w", "limit": 0}, 422, "limit"),
        ("/v1/queues/mail:lease", {"worker": "", "limit": 1}, 422, "worker"),
        ("/v1/queues/mail:lease", {"worker": "w", "lease_s": 0}, 422, "lease_s"),
        ("/v1/queues/mail:lease", {"worker": "w", "wait_s": -1}, 422, "wait_s"),
        ("/v1/jobs/77:complete", {"fence": 1}, 409, "fence"),
        ("/v1/jobs/77:complete", {"fence": 10**30}, 409, "fence"),
        ("/v1/jobs/77:cancel", None, 404, ""),
        ("/v1/jobs/x:cancel", None, 404, ""),
        ("/v1/queues/nope:pause", None, 404, ""),
    ],
)
async def test_bad_input_is_a_problem_that_names_the_field(
    api: Api, path: str, body: Any, status: int, field: str
) -> None:
    got, problem = await api.call("POST", path, body)
    assert (got, problem.get("field", "")) == (status, field), problem
    assert problem["code"]
    assert await api.service.store.find(JobFilter()) == [], "nothing was stored"


async def test_schedules_over_http(api: Api) -> None:
    bad = {"name": "s", "job": JOB, "cron": "* * *"}
    status, problem = await api.call("PUT", "/v1/schedules/s", bad)
    assert (status, problem["field"]) == (422, "cron")
    status, _ = await api.call("PUT", "/v1/schedules/s", {**bad, "cron": "0 3 * * *", "tz": "Europe/Berlin"})
    assert status == 200
    _, answer = await api.call("GET", "/v1/schedules")
    assert [told["schedule"]["name"] for told in answer["schedules"]] == ["s"]
    assert (await api.call("DELETE", "/v1/schedules/s"))[0] == 204
    assert (await api.call("DELETE", "/v1/schedules/s"))[0] == 404


async def test_a_wrong_token_stores_nothing(api: Api) -> None:
    client = HttpClient(Address(api.url, "wrong"))
    status, _ = await client.call("POST", "/v1/queues/mail/jobs", json.dumps(JOB).encode())
    client.close()
    assert status == 401
    assert await api.service.store.find(JobFilter()) == []


async def test_a_client_that_goes_away_leaves_no_lease(api: Api) -> None:
    leaving = HttpClient(Address(api.url, "t0ken"))
    body = json.dumps({"worker": "w", "wait_s": 30}).encode()
    call = asyncio.create_task(leaving.call("POST", "/v1/queues/mail:lease", body))
    async with asyncio.timeout(5):
        while not api.service._waiting:
            await asyncio.sleep(0)
        call.cancel()
        leaving.close()
        while api.service._waiting:
            await asyncio.sleep(0)
    await api.call("POST", "/v1/queues/mail/jobs", JOB)
    (job,) = await api.service.store.find(JobFilter())
    assert (job.state, job.fence) == ("available", 0)


async def test_every_route_is_in_the_document(api: Api) -> None:
    _, document = await api.call("GET", "/openapi.json")
    paths = document["paths"]
    for path in (
        "/v1/queues/{queue}/jobs",
        "/v1/queues/{queue}:lease",
        "/v1/jobs/{job_id}:complete",
        "/v1/jobs:settle",
    ):
        assert "post" in paths[path], path
    enqueue = paths["/v1/queues/{queue}/jobs"]["post"]
    assert enqueue["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/NewJob")
    assert "201" in enqueue["responses"]
