"""`fairway jobs`: enqueue, watch and look after jobs, queues and schedules of the daemon."""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any
from urllib.parse import quote

import click

from fairway.cli import output
from fairway.cli.client import Client
from fairway.cli.project import current

_STATES = ("scheduled", "available", "running", "retryable", "completed", "cancelled", "discarded")


def _json_option(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


class _Seconds(click.ParamType):  # type: ignore[type-arg]  # generic from Click 8.5 on only
    """A number of seconds; JSON has no form for nan and infinity, which Python reads as numbers."""

    name = "seconds"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        try:
            seconds = float(str(value))
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            self.fail(f"expected a number of seconds from 0 on, got {str(value)!r}", param, ctx)
        return seconds


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} has no form in JSON")


def _queue_path(name: str, rest: str = "") -> str:
    return f"/v1/queues/{quote(name, safe='')}{rest}"


@click.group()
def jobs() -> None:
    """Enqueue, watch and look after jobs."""


@jobs.command("list")
@click.option("-q", "--queue", help="Only this queue.")
@click.option("-s", "--state", type=click.Choice(_STATES), help="Only this state.")
@click.option("-k", "--kind", help="Only this kind.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most this many.")
@_json_option
def list_jobs(as_json: bool, **where: Any) -> None:
    """List jobs, newest first."""
    found = Client(current()).get("/v1/jobs", **where)["jobs"]
    if as_json:
        output.as_json(found)
    elif not found:
        click.echo("No jobs.", err=True)
    else:
        _print_jobs(found)


def _print_jobs(found: list[dict[str, Any]]) -> None:
    now = time.time()
    rows = [
        (
            str(job["id"]),
            job["queue"],
            job["kind"],
            output.state(job["state"]),
            f"{job['attempt']}/{job['max_attempts']}",
            output.ago(job["created_at"], now),
            _remark(job, now),
        )
        for job in found
    ]
    output.table(("ID", "QUEUE", "KIND", "STATE", "ATTEMPT", "AGE", "REMARK"), rows)


def _remark(job: dict[str, Any], now: float) -> str:
    if job["state"] in {"scheduled", "retryable"}:
        due = f"due in {max(0.0, job['run_at'] - now):.0f}s"
        return f"{due}: {job['error'].splitlines()[0][:80]}" if job.get("error") else due
    if job.get("progress") is not None:
        return f"{job['progress']:.0%} {job.get('note') or ''}".strip()
    if job.get("cancel_requested"):
        return "cancelling"
    return str(job.get("error") or "").partition("\n")[0][:100]


@jobs.command()
@click.argument("job_id", type=int)
@_json_option
def show(job_id: int, as_json: bool) -> None:
    """Show everything about one job."""
    job = Client(current()).get(f"/v1/jobs/{job_id}")
    if as_json:
        output.as_json(job)
        return
    for name, value in job.items():
        if name.endswith("_at") or name == "lease_until":
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        click.echo(f"{output.paint(name.rjust(17), dim=True)}  {output.printable(text) if name != 'error' else ''}")
        if name == "error":
            for line in text.splitlines():
                click.echo(" " * 19 + output.printable(line))


@jobs.command()
@click.argument("queue")
@click.argument("kind")
@click.argument("args", required=False)
@click.option("--delay", "delay_s", type=_Seconds(), metavar="SECONDS", help="Run it later.")
@click.option("--priority", type=click.IntRange(0, 9), help="0 is first, 9 is last.")
@click.option("--max-attempts", type=click.IntRange(1, 1000), help="Attempts before it is discarded.")
@click.option("--timeout", "timeout_s", type=_Seconds(), metavar="SECONDS", help="Limit of one attempt.")
@click.option("--unique", "unique_key", metavar="KEY", help="Enqueue nothing while a job with this key is alive.")
@click.option("--wait", metavar="SECONDS", type=_Seconds(), help="Wait for the end and print the result.")
@_json_option
def enqueue(queue: str, kind: str, args: str | None, wait: float | None, as_json: bool, **options: Any) -> int:
    """Enqueue a job of KIND with ARGS, a JSON value; `-` reads it from standard input."""
    client = Client(current(), timeout=None)
    text = sys.stdin.read() if args == "-" else args
    body: dict[str, Any] = {"kind": kind, **{name: value for name, value in options.items() if value is not None}}
    if text is not None:
        try:
            body["args"] = json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f'expected JSON such as {{"n": 1}}, got {text!r}', param_hint="ARGS") from error
    answer = client.post(_queue_path(queue, "/jobs"), body)
    job_id = answer["ids"][0]
    if wait is None:
        if as_json:
            output.as_json(answer)
        else:
            known = ", existed already" if answer["duplicates"] else ""
            click.echo(f"Enqueued as {job_id}{known} ({answer['durability']}).")
        return 0
    return _wait_for(client, job_id, wait, as_json)


def _wait_for(client: Client, job_id: int, wait: float, as_json: bool) -> int:
    deadline = time.monotonic() + wait
    while True:
        left = max(0.0, deadline - time.monotonic())
        result = client.get(f"/v1/jobs/{job_id}/result", wait=f"{min(left, 60.0):.3f}s")
        if result["state"] in {"completed", "cancelled", "discarded"} or left <= 0:
            break
    if as_json:
        output.as_json(result)
    elif result["state"] == "completed":
        click.echo(json.dumps(result.get("result"), ensure_ascii=False))
    else:
        click.echo(f"Job {job_id} is {result['state']}. {result.get('error') or ''}".rstrip(), err=True)
    return 0 if result["state"] == "completed" else 1


def _act(job_ids: tuple[int, ...], verb: str, as_json: bool) -> None:
    client = Client(current())
    found = [client.post(f"/v1/jobs/{job_id}:{verb}") for job_id in job_ids]
    if as_json:
        output.as_json(found)
    else:
        _print_jobs(found)


@jobs.command()
@click.argument("job_ids", type=int, nargs=-1, required=True, metavar="ID...")
@_json_option
def cancel(job_ids: tuple[int, ...], as_json: bool) -> None:
    """Cancel jobs: waiting ones now, running ones as soon as their worker hears of it."""
    _act(job_ids, "cancel", as_json)


@jobs.command()
@click.argument("job_ids", type=int, nargs=-1, required=True, metavar="ID...")
@_json_option
def retry(job_ids: tuple[int, ...], as_json: bool) -> None:
    """Make waiting, discarded or cancelled jobs available now, their attempts back at 0."""
    _act(job_ids, "retry", as_json)


@jobs.command()
@click.option("-q", "--queue", help="Only this queue.")
@click.option("-k", "--kind", help="Only this kind.")
@_json_option
def replay(queue: str | None, kind: str | None, as_json: bool) -> None:
    """Retry every discarded job."""
    client = Client(current())
    total = 0
    while count := client.post("/v1/jobs:replay", {"queue": queue, "kind": kind, "limit": 1000})["replayed"]:
        total += count
    if as_json:
        output.as_json({"replayed": total})
    else:
        click.echo(f"{total} jobs are available again.")


@jobs.command()
@_json_option
def queues(as_json: bool) -> None:
    """List the queues and how many jobs are in which state."""
    found = Client(current()).get("/v1/queues")["queues"]
    if as_json:
        output.as_json(found)
    elif not found:
        click.echo("No queues yet: the first job of a queue makes it.", err=True)
    else:
        output.table(("QUEUE", "", *(state.upper() for state in _STATES)), _queue_rows(found))


def _queue_rows(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            queue["name"],
            output.paint("paused", "yellow") if queue["paused"] else "",
            *(str(queue["counts"].get(state, 0)) for state in _STATES),
        )
        for queue in found
    ]


def _print_queue(queue: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.as_json(queue)
    else:
        click.echo(f"{queue['name']} is {'paused: running jobs go on' if queue['paused'] else 'active'}.")


@jobs.command()
@click.argument("queue")
@_json_option
def pause(queue: str, as_json: bool) -> None:
    """Lease nothing from QUEUE until it is resumed."""
    _print_queue(Client(current()).post(_queue_path(queue, ":pause")), as_json)


@jobs.command()
@click.argument("queue")
@_json_option
def resume(queue: str, as_json: bool) -> None:
    """Lease from QUEUE again."""
    _print_queue(Client(current()).post(_queue_path(queue, ":resume")), as_json)


@jobs.command()
@_json_option
def schedules(as_json: bool) -> None:
    """List the schedules and when they last fired."""
    found = Client(current()).get("/v1/schedules")["schedules"]
    if as_json:
        output.as_json(found)
        return
    if not found:
        click.echo("No schedules: workers store those of their tasks.", err=True)
        return
    now = time.time()
    rows = []
    for status in found:
        schedule = status["schedule"]
        when = schedule.get("cron") or f"every {schedule.get('every_s'):g}s"
        rows.append(
            (
                schedule["name"],
                when,
                schedule.get("tz", "UTC"),
                schedule["job"]["kind"],
                schedule["job"].get("queue", "default"),
                output.ago(status.get("last_tick"), now),
                "paused" if schedule.get("paused") else "",
            )
        )
    output.table(("NAME", "WHEN", "ZONE", "KIND", "QUEUE", "LAST", ""), rows)


@jobs.command()
@click.option(
    "--interval", type=click.FloatRange(0.2), default=1.0, show_default=True, metavar="SECONDS", help="Pause."
)
@click.option("--once", is_flag=True, help="Print one frame and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a frame, each on a line.")
def top(interval: float, once: bool, as_json: bool) -> None:
    """Watch queues and running jobs live; Ctrl-C ends it. Without a terminal it prints one frame, unless as JSON."""
    client = Client(current())
    before: dict[str, int] = {}
    seen = time.monotonic()
    live = (as_json or sys.stdout.isatty()) and not once
    try:
        while True:
            found = client.get("/v1/queues")["queues"]
            running = client.get("/v1/jobs", state="running", limit=15)["jobs"]
            now = time.monotonic()
            rates = _rates(found, before, now - seen)
            if as_json:
                queues = [{**queue, "rate": rates[queue["name"]]} for queue in found]
                click.echo(json.dumps({"time": time.time(), "queues": queues, "running": running}, ensure_ascii=False))
            else:
                if live:
                    click.clear()
                _frame(found, running, rates)
            if once or not live:
                return
            before = {queue["name"]: queue["counts"].get("completed", 0) for queue in found}
            seen = now
            time.sleep(interval)
    except KeyboardInterrupt:
        return


def _rates(found: list[dict[str, Any]], before: dict[str, int], elapsed: float) -> dict[str, float]:
    """Return completed jobs a second by queue; 0 where there is nothing to compare with."""
    rates = {}
    for queue in found:
        name, done = queue["name"], queue["counts"].get("completed", 0)
        rates[name] = max(0.0, (done - before[name]) / elapsed) if name in before else 0.0
    return rates


def _frame(found: list[dict[str, Any]], running: list[dict[str, Any]], rates: dict[str, float]) -> None:
    rows = [(*row, f"{rates[queue['name']]:,.0f}/s") for queue, row in zip(found, _queue_rows(found), strict=True)]
    output.table(("QUEUE", "", *(state.upper() for state in _STATES), "RATE"), rows)
    if running:
        click.echo()
        now = time.time()
        output.table(
            ("ID", "QUEUE", "KIND", "ATTEMPT", "FOR", "WORKER", "PROGRESS"),
            [
                (
                    str(job["id"]),
                    job["queue"],
                    job["kind"],
                    f"{job['attempt']}/{job['max_attempts']}",
                    output.ago(job.get("started_at"), now),
                    job.get("worker") or "-",
                    _remark(job, now),
                )
                for job in running
            ],
        )
