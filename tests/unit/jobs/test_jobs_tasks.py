"""Typed tasks: signatures become schemas, arguments are checked when a job is made."""

from typing import Any

import msgspec
import pytest

from fairway.jobs.context import JobContext
from fairway.jobs.errors import InvalidJob, UnknownTask
from fairway.jobs.tasks import TaskError, Tasks, load_tasks

tasks = Tasks()


class Address(msgspec.Struct):
    street: str
    number: int = 1


@tasks.task(queue="mail", priority=2, timeout_s=5.0)
async def send(ctx: JobContext, to: Address, copies: int = 1, tags: list[str] = []) -> str:  # noqa: B006
    tags.append("seen")
    return f"{to.street} {to.number} {copies} {tags}"


@tasks.task
def plain(n: int) -> int:
    return n


def test_a_job_carries_its_tasks_options_and_json_arguments() -> None:
    job = send.job(Address("Main"), copies=2)
    assert (job.kind, job.queue, job.priority, job.timeout_s) == ("send", "mail", 2, 5.0)
    assert msgspec.json.decode(job.args) == {"to": {"street": "Main", "number": 1}, "copies": 2}
    assert send.using(delay_s=3.0).job(Address("x")).delay_s == 3.0
    assert send.job(Address("x")).delay_s is None


def test_arguments_by_position_and_by_name_make_the_same_job() -> None:
    assert plain.job(7) == plain.job(n=7)
    assert send.job(Address("x"), 2, ["a"]) == send.job(to=Address("x"), copies=2, tags=["a"])
    assert send.job(Address("x"), 2) == send.job(Address("x"), copies=2)


async def test_call_decodes_types_and_fresh_defaults() -> None:
    data = send.job(Address("Main")).args
    assert await send.call(None, data) == "Main 1 1 ['seen']"
    assert await send.call(None, data) == "Main 1 1 ['seen']", "a mutable default is not shared between calls"


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: plain.job("x"), "args.n"),
        (lambda: plain.job(), "args"),
        (lambda: plain.job(1, 2), "args"),
        (lambda: plain.job(1, n=2), "args.n"),
        (lambda: plain.job(1, other=2), "args"),
        (lambda: plain.job(object()), "args"),
        (lambda: send.job({"street": "x", "number": "y"}), "args.to.number"),
        (lambda: plain.using(priority=99), "priority"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, field: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidJob) as caught:
        call()
    assert caught.value.field == field


def test_schema_is_that_of_the_signature() -> None:
    schema = send.schema()
    arguments = schema["$defs"]["send_arguments"]
    assert arguments["required"] == ["to"]
    assert arguments["properties"]["copies"] == {"type": "integer", "default": 1}
    assert arguments["additionalProperties"] is False


def test_what_cannot_be_a_task_says_why() -> None:
    registry = Tasks()
    with pytest.raises(TaskError, match="plain parameters"):

        @registry.task
        async def spread(*numbers: int) -> None: ...

    with pytest.raises(TaskError, match="first parameter"):

        @registry.task
        async def late(n: int, ctx: JobContext) -> None: ...

    with pytest.raises(TaskError, match="cannot have the context"):

        @registry.task(mode="process")
        def apart(ctx: JobContext) -> None: ...

    with pytest.raises(TaskError, match="a plain function"):

        @registry.task(mode="thread")
        async def threaded() -> None: ...

    registry.task(plain.fn)
    with pytest.raises(TaskError, match="registered twice"):
        registry.task(plain.fn)
    with pytest.raises(InvalidJob, match="max_attempts"):

        @registry.task(max_attempts=0)
        async def never() -> None: ...


def test_unknown_kinds_name_the_known_ones() -> None:
    with pytest.raises(UnknownTask, match="known: plain, send"):
        tasks.get("nope")
    assert "send" in tasks
    assert len(tasks) == 2


def test_calling_a_task_calls_the_function() -> None:
    assert plain(3) == 3


def test_modules_are_looked_up() -> None:
    with pytest.raises(TaskError, match="cannot import"):
        load_tasks("no.such.module")
    with pytest.raises(TaskError, match="expected one Tasks"):
        load_tasks("json")
    with pytest.raises(TaskError, match="to be a Tasks"):
        load_tasks("json:dumps")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"priority": 1.5}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"unique_key": 5}, "unique_key"),
        ({"delay_s": "5s"}, "delay_s"),
        ({"meta": {"a": 1}}, "meta[...]"),
        ({"backoff": 3}, "backoff"),
        ({"then": ("next",)}, "then[0]"),
    ],
)
def test_options_of_another_type_are_named(options: dict[str, Any], field: str) -> None:
    tasks = Tasks()

    async def send() -> None: ...

    with pytest.raises(InvalidJob, match="Expected") as caught:
        tasks.task(**options)(send)
    assert caught.value.field == field
    with pytest.raises(InvalidJob) as caught:
        tasks.task(send).using(**options)
    assert caught.value.field == field
