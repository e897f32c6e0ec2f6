"""`Tasks`: the functions that jobs run, with typed arguments that are checked when a job is enqueued.

```python
tasks = Tasks()

@tasks.task(queue="mail", timeout_s=30)
async def send(ctx: JobContext, to: str, copies: int = 1) -> str: ...

job = send.job("ann@example.org", copies=2)     # a NewJob; a wrong argument raises InvalidJob here
```
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import typing
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Generic, Literal, ParamSpec, TypedDict, TypeVar

import msgspec
from msgspec import Raw

from fairway.jobs import machine
from fairway.jobs.context import JobContext
from fairway.jobs.errors import InvalidJob, JobError, UnknownTask
from fairway.jobs.job import Backoff, NewJob, Schedule

if typing.TYPE_CHECKING:
    from typing import Concatenate, Unpack

P = ParamSpec("P")
R = TypeVar("R")
Mode = Literal["async", "thread", "process"]
Next = Callable[[], Awaitable[Any]]
Middleware = Callable[[JobContext, Next], Awaitable[Any]]
"""Runs around a handler: ``async def timing(ctx, call_next): …; result = await call_next(); …; return result``."""


_encode = msgspec.json.encode
_astuple = msgspec.structs.astuple
_set = msgspec.structs.force_setattr


class JobOptions(TypedDict, total=False):
    """What a task sets on its jobs: the fields of `NewJob` by the same names."""

    queue: str
    priority: int
    delay_s: float | None
    run_at: float | None
    max_attempts: int
    timeout_s: float | None
    backoff: Backoff
    unique_key: str | None
    unique_for_s: float | None
    concurrency_key: str | None
    concurrency_limit: int
    result_ttl_s: float
    keep_s: float | None
    then: tuple[NewJob, ...]
    meta: dict[str, str]


class TaskError(JobError):
    """A function that cannot be a task, or a name registered twice."""

    code = "jobs.task"


class Task(Generic[P, R]):
    """A registered function. Calling it calls the function.

    Attributes:
        name: The `kind` of its jobs.
        fn: The function.
        mode: Where a worker runs it: on its loop, in a thread, or in a process.
        takes_context: Whether its first parameter is a `JobContext`.
        arguments: msgspec struct made from the signature.
        returns: Annotation of what it returns.
    """

    __slots__ = (
        "_decode", "_names", "_template", "arguments", "fn", "mode", "name", "returns",
        "takes_context",
    )  # fmt: skip

    def __init__(self, name: str, fn: Callable[..., Any], mode: Mode, options: JobOptions) -> None:
        self.name = name
        self.fn = fn
        self.mode: Mode = mode
        fields, self.takes_context, self.returns = _signature(fn)
        self._names = tuple(field[0] for field in fields)
        self.arguments: type[msgspec.Struct] = msgspec.defstruct(
            f"{fn.__name__}_arguments", fields, forbid_unknown_fields=True
        )
        self._decode = msgspec.json.Decoder(self.arguments).decode
        _check_types(options)
        self._template = NewJob(kind=name, **options)
        machine.check_job(self._template, 1 << 62)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, here and now."""
        return self.fn(*args, **kwargs)

    def using(self, **options: Unpack[JobOptions]) -> Task[P, R]:
        """Return the task with other job options: ``send.using(delay_s=60).job(…)``.

        Raises:
            InvalidJob: An option is out of its bounds or of another type; `field` names it.
        """
        _check_types(options)
        other = object.__new__(Task)
        for slot in Task.__slots__:
            setattr(other, slot, getattr(self, slot))
        other._template = msgspec.structs.replace(self._template, **options)
        machine.check_job(other._template, 1 << 62)
        return other

    def job(self, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """Return a job that will call the function with these arguments (without the context).

        Raises:
            InvalidJob: They do not fit the signature, or have no JSON form; `field` names the parameter.
        """
        # All by position is what most calls look like; a struct is made and encoded faster than a dictionary.
        given = self.arguments(*args) if not kwargs and len(args) == len(self._names) else self._given(args, kwargs)
        try:
            data = _encode(given)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidJob(f"arguments of {self.name} have no JSON form: {error}", field="args") from error
        try:
            self._decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise self._refused(error) from error
        # Much faster than msgspec.structs.replace, and this is the path of every enqueue.
        job: NewJob = self._template.__copy__()  # type: ignore[attr-defined]  # every Struct's, not in the stubs
        _set(job, "args", Raw(data))
        return job

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return arguments by name."""
        if len(args) > len(self._names):
            raise InvalidJob(
                f"expected at most {len(self._names)} arguments for {self.name}, got {len(args)}", field="args"
            )
        given = dict(zip(self._names, args, strict=False))
        if not given.keys().isdisjoint(kwargs):
            twice = sorted(given.keys() & kwargs.keys())
            raise InvalidJob(f"{self.name} got several values for {', '.join(twice)}", field=f"args.{twice[0]}")
        given.update(kwargs)
        return given

    def decode(self, data: bytes | Raw) -> msgspec.Struct:
        """Return JSON arguments as a struct.

        Raises:
            InvalidJob: They do not fit the signature.
        """
        try:
            return self._decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> InvalidJob:
        if isinstance(error, msgspec.ValidationError):
            message, _, where = str(error).partition(" - at `$")
            path = where.rstrip("`")
            return InvalidJob(f"arguments of {self.name}{path}: {message}", field=f"args{path}")
        return InvalidJob(f"arguments of {self.name} are not JSON: {error}", field="args")

    def call(self, context: JobContext | None, data: bytes | Raw) -> Any:
        """Call the function with JSON arguments; a worker does this."""
        try:
            values = _astuple(self._decode(data))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise self._refused(error) from error
        return self.fn(context, *values) if self.takes_context else self.fn(*values)

    def positional(self, data: bytes | Raw) -> tuple[Any, ...]:
        """Return JSON arguments in the order of the parameters."""
        return _astuple(self.decode(data))

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the arguments."""
        return msgspec.json.schema(self.arguments)

    def __repr__(self) -> str:
        return f"<Task {self.name} [{self.mode}, queue {self._template.queue}]>"


def _check_types(options: JobOptions) -> None:
    """Raise `InvalidJob` for an option of another type than the field's: a store would fail on it, or keep it."""
    try:
        msgspec.convert(options, JobOptions)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        raise InvalidJob(f"{where.rstrip('`')}: {message}", field=where.rstrip("`")) from error


def _signature(fn: Callable[..., Any]) -> tuple[list[tuple[str, Any] | tuple[str, Any, Any]], bool, Any]:
    """Return the struct fields of the parameters, whether the first is the context, and what is returned."""
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except NameError as error:
        raise TaskError(f"the annotations of {fn.__qualname__} cannot be resolved: {error}") from error
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    takes_context = False
    for n, parameter in enumerate(inspect.signature(fn).parameters.values()):
        hint = hints.get(parameter.name, Any)
        if hint is JobContext:
            if n:
                raise TaskError(f"{fn.__qualname__}: expected the JobContext as the first parameter")
            takes_context = True
            continue
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise TaskError(
                f"{fn.__qualname__}: expected plain parameters, got {parameter}",
                hint="a task's arguments travel as one JSON object; give each a name, before any *",
            )
        default = parameter.default
        if default is parameter.empty:
            fields.append((parameter.name, hint))
        elif isinstance(default, (list, dict, set)):
            fields.append((parameter.name, hint, msgspec.field(default_factory=functools.partial(copy.copy, default))))
        else:
            fields.append((parameter.name, hint, default))
    return fields, takes_context, hints.get("return", Any)


class Tasks:
    """A registry of tasks, their middleware and their schedules."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}
        self.middleware: list[Middleware] = []
        self.schedules: list[Schedule] = []

    @typing.overload
    def task(self, fn: Callable[Concatenate[JobContext, P], Awaitable[R]], /) -> Task[P, R]: ...
    @typing.overload
    def task(self, fn: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @typing.overload
    def task(self, fn: Callable[P, R], /) -> Task[P, R]: ...
    @typing.overload
    def task(
        self, fn: None = None, /, *, name: str | None = None, mode: Mode | None = None, **options: Unpack[JobOptions]
    ) -> Callable[[Callable[..., Any]], Task[..., Any]]: ...

    def task(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        mode: Mode | None = None,
        **options: Any,
    ) -> Any:
        """Register a function, as ``@tasks.task`` or ``@tasks.task(queue="mail", …)``.

        Args:
            fn: The function; a first parameter annotated `JobContext` receives the context.
            name: `kind` of the jobs; default is the function's name.
            mode: ``async`` (coroutine functions), ``thread`` (others) or ``process``; a process takes no context.
            options: What its jobs set; see `JobOptions`.

        Raises:
            TaskError: The name is taken, or the signature cannot be a task's.
            InvalidJob: An option is out of its bounds.
        """
        if fn is None:
            return lambda fn: self._register(fn, name, mode, typing.cast(JobOptions, options))
        return self._register(fn, name, mode, typing.cast(JobOptions, options))

    def _register(
        self, fn: Callable[..., Any], name: str | None, mode: Mode | None, options: JobOptions
    ) -> Task[..., Any]:
        kind = name or fn.__name__
        if kind in self._tasks:
            raise TaskError(f"expected every task to have a name of its own, {kind!r} is registered twice")
        is_async = inspect.iscoroutinefunction(fn)
        mode = mode or ("async" if is_async else "thread")
        if is_async != (mode == "async"):
            raise TaskError(f"expected {'a plain' if is_async else 'a coroutine'} function for mode {mode!r}: {kind}")
        task: Task[..., Any] = Task(kind, fn, mode, options)
        if mode == "process" and task.takes_context:
            raise TaskError(f"{kind}: a task in a process cannot have the context, which lives in the worker")
        self._tasks[kind] = task
        return task

    def use(self, middleware: Middleware) -> Middleware:
        """Run `middleware` around every handler, the first used outermost; usable as a decorator."""
        self.middleware.append(middleware)
        return middleware

    def schedule(
        self,
        name: str,
        job: NewJob,
        *,
        cron: str | None = None,
        every_s: float | None = None,
        tz: str = "UTC",
        catch_up: Literal["skip", "last", "all"] = "skip",
    ) -> None:
        """Have workers enqueue `job` again and again; see `Schedule`.

        Raises:
            InvalidJob: The schedule is not valid.
        """
        schedule = Schedule(name=name, job=job, cron=cron, every_s=every_s, tz=tz, catch_up=catch_up)
        machine.check_schedule(schedule, 1 << 62)
        self.schedules.append(schedule)

    def get(self, kind: str) -> Task[..., Any]:
        """Return a task.

        Raises:
            UnknownTask: None has this name.
        """
        task = self._tasks.get(kind)
        if task is None:
            known = ", ".join(sorted(self._tasks)) or "none"
            raise UnknownTask(f"no task is named {kind!r}; known: {known}", field="kind")
        return task

    def __contains__(self, kind: object) -> bool:
        return kind in self._tasks

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<Tasks [{', '.join(sorted(self._tasks))}]>"


def load_tasks(module: str) -> Tasks:
    """Return the one `Tasks` of a module, ``package.module`` or ``package.module:name``.

    Raises:
        TaskError: The module cannot be imported or has not exactly one.
    """
    path, _, name = module.partition(":")
    try:
        found = importlib.import_module(path)
    except ImportError as error:
        raise TaskError(
            f"cannot import {path!r}: {error}",
            code="jobs.module",
            hint="start in the folder that holds the package, or name that folder in PYTHONPATH",
        ) from error
    if name:
        tasks = getattr(found, name, None)
        if not isinstance(tasks, Tasks):
            raise TaskError(f"expected {module} to be a Tasks, got {type(tasks).__name__}", code="jobs.module")
        return tasks
    registries = list({id(value): value for value in vars(found).values() if isinstance(value, Tasks)}.values())
    if len(registries) != 1:
        raise TaskError(
            f"expected one Tasks in {path}, found {len(registries)}",
            code="jobs.module",
            hint=f"name it: {path}:NAME",
        )
    return registries[0]


def call_in_process(item: tuple[str, str, tuple[Any, ...]]) -> Any:
    """Run a task's function in a worker process; `item` is module, qualified name, arguments."""
    module, qualname, values = item
    target: Any = importlib.import_module(module)
    for part in qualname.split("."):
        target = getattr(target, part)
    fn = target.fn if isinstance(target, Task) else target
    return fn(*values)
