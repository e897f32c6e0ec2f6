"""Plans for C# and F# apps: ``dotnet publish`` of the web project, started through the ``dotnet`` host."""

from __future__ import annotations

import re

from fairway.build.facts import Facts
from fairway.build.plan import BuildPlan, Built, Layout, PlanError, StartPlan, Step, Tool
from fairway.command import Command

ENV = {
    "ASPNETCORE_URLS": "http://127.0.0.1:$PORT",
    "DOTNET_NOLOGO": "1",
    "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
    # A runtime newer than the target is better than none.
    "DOTNET_ROLL_FORWARD": "Major",
}
_BUILD_ENV = {
    "DOTNET_NOLOGO": "1",
    "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
    "DOTNET_SKIP_FIRST_TIME_EXPERIENCE": "1",
    "MSBUILDDISABLENODEREUSE": "1",
}
# Bounded repeats: a project file is somebody else's text, and has to be read in linear time.
_TARGET = re.compile(r"<TargetFramework(s?)>([^<]{1,500})</TargetFramework")
_ASSEMBLY = re.compile(r"<AssemblyName>([^<$]{1,500})</AssemblyName>")
_WEB_SDK = re.compile(r"Sdk\s{0,9}=\s{0,9}\"Microsoft\.NET\.Sdk\.Web\"")


def choose_project(facts: Facts) -> str:
    """Return the project file to publish: the only one, else the only web project, else the one named as the app.

    Raises:
        PlanError: There is none, or several and nothing says which.
    """
    projects = [p for p in facts.texts if p.endswith((".csproj", ".fsproj"))]
    projects = [p for p in projects if not re.search(r"tests?\.[cf]sproj$", p, re.IGNORECASE)] or projects
    if not projects:
        raise PlanError(f"expected a .csproj or .fsproj file in {facts.app}, found none")
    projects.sort(key=lambda p: (p.count("/"), p))
    web = [p for p in projects if _WEB_SDK.search(facts.texts[p])]
    for candidates in (projects, web):
        if len(candidates) == 1:
            return candidates[0]
    for path in web or projects:
        if _stem(path).lower().replace(".", "-") == facts.app:
            return path
    shallow = [p for p in web if p.count("/") == web[0].count("/")]
    if len(shallow) == 1:
        return shallow[0]
    raise PlanError(
        f"expected one web project in {facts.app}, or one named as the app, found: {', '.join(web or projects)}",
        hint="Set `source:` of the registry entry to the folder of one project.",
    )


def framework_override(text: str, sdk: tuple[int, ...]) -> str | None:
    """Return the target framework to publish for where the project's own is newer than the SDK, or None.

    Args:
        text: The project file.
        sdk: Version of the installed SDK.

    >>> framework_override("<TargetFramework>net8.0</TargetFramework>", (3, 1, 426))
    'netcoreapp3.1'
    """
    match = _TARGET.search(text)
    if match is None or not sdk:
        return None
    targets = [t.strip() for t in match[2].split(";")]
    versions = {t: v for t in targets if (v := _framework_version(t))}
    fitting = [t for t, v in versions.items() if v <= sdk[:2]]
    if fitting:
        return max(fitting, key=lambda t: versions[t]) if match[1] else None
    if not versions:
        return None
    return f"netcoreapp{sdk[0]}.{sdk[1]}" if sdk[0] < 5 else f"net{sdk[0]}.0"


def _framework_version(target: str) -> tuple[int, ...]:
    match = re.fullmatch(r"net(?:coreapp)?(\d{1,4})\.(\d{1,4})(?:-[\w.]+)?", target)
    return (int(match[1]), int(match[2])) if match else ()


def plan_build(facts: Facts, layout: Layout, dotnet: Tool) -> BuildPlan:
    """Return the ``dotnet publish`` of the chosen project into the output folder."""
    project = choose_project(facts)
    override = framework_override(facts.texts[project], dotnet.version)
    argv = [dotnet.path, "publish", project, "-c", "Release", "-o", str(layout.output), "--nologo"]
    # Build servers would outlive the build and keep its files open.
    argv += ["-nodeReuse:false", "-p:UseSharedCompilation=false", "-p:UseAppHost=false"]
    notes = []
    if override:
        argv.append(f"-p:TargetFramework={override}")
        notes.append(f"built for {override}: the installed SDK is {dotnet.version_text}")
    step = Step(f"dotnet publish {project}", Command(tuple(argv), {**_BUILD_ENV, **dotnet.env}, layout.source))
    return BuildPlan("dotnet", (step,), tuple(notes))


def default_start(facts: Facts, layout: Layout, dotnet: Tool, built: Built) -> StartPlan:
    """Return the start of the published assembly.

    Raises:
        PlanError: The output folder has no runnable assembly.
    """
    project = choose_project(facts)
    named = _ASSEMBLY.search(facts.texts[project])
    runnable = sorted(o for o in built.outputs if o.endswith(".runtimeconfig.json") and "/" not in o)
    wanted = f"{named[1].strip() if named else _stem(project)}.runtimeconfig.json"
    chosen = wanted if wanted in runnable else next(iter(runnable), None)
    if chosen is None:
        raise PlanError(f"expected a program from publishing {project} of {facts.app}, got a library")
    assembly = layout.output / chosen.replace(".runtimeconfig.json", ".dll")
    # ASP.NET Core looks for appsettings.json and wwwroot in the working folder: publish puts both in the output.
    env = {**ENV, **dotnet.env}
    return StartPlan({"web": Command((dotnet.path, str(assembly)), {}, layout.output)}, env)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]
