"""Folders as values in, commands out: nothing here touches a disk, except where a hostile folder is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fairway.build import dotnet, golang, node, planner, python
from fairway.build.facts import Facts
from fairway.build.plan import Built, Kind, Layout, PlanError, StartPlan, Tool
from fairway.build.planner import Resolution, Wishes
from fairway.build.python_dependencies import Dependencies, environment_key, read_dependencies, to_pep440
from fairway.build.python_entry import find_entry
from fairway.command import Command

LAYOUT = Layout(Path("/b/source"), Path("/b/output"), Path("/v"))
TOOLS = {
    "go": Tool("/t/go/bin/go", (1, 26)),
    "node": Tool("/t/node/bin/node", (22, 1)),
    "dotnet": Tool("/t/dotnet/dotnet", (8, 0, 100), {"DOTNET_ROOT": "/t/dotnet"}),
    "docker": Tool("/t/docker", (28,)),
}


def folder(texts: dict[str, str], *files: str, mains: tuple[str, ...] = ()) -> Facts:
    return Facts("shop", tuple(sorted({*texts, *files})), texts, mains)


def resolution(facts: Facts, wishes: Wishes | None = None, kind: Kind | None = None) -> Resolution:
    wishes = wishes or Wishes()
    kind = kind or planner.detect(facts, wishes)
    layout = LAYOUT if kind == "python" else Layout(LAYOUT.source, LAYOUT.output)
    return Resolution(kind, facts, wishes, layout, TOOLS, "/usr/bin", lambda name: f"/usr/bin/{name}", "d" * 64)


def start(facts: Facts, wishes: Wishes | None = None, built: Built | None = None) -> StartPlan:
    return planner.plan_start(resolution(facts, wishes), built or Built())


def web(facts: Facts, wishes: Wishes | None = None, built: Built | None = None) -> Command:
    return start(facts, wishes, built).processes["web"]


def venv(*names: str) -> Built:
    return Built({name: Path("/v/bin") / name for name in names})


def bins(**programs: str) -> Built:
    found = {name.replace("_", "-"): Path(f"/b/source/node_modules/{path}") for name, path in programs.items()}
    return Built(found, frozenset(found))


GO = "module example.com/team/shop\n\ngo 1.22\n"


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        ({"go.mod": GO}, "go"),
        ({"requirements.txt": ""}, "python"),
        ({"pyproject.toml": ""}, "python"),
        ({"main.py": ""}, "python"),
        ({"package.json": "{}"}, "node"),
        ({"src/Shop.csproj": ""}, "dotnet"),
        ({"Dockerfile": "FROM x"}, "docker"),
        ({"compose.yaml": ""}, "compose"),
        ({"Procfile": "web: ./run"}, "command"),
        ({"go.mod": GO, "Dockerfile": "", "package.json": "{}"}, "go"),
        ({"Procfile": "web: node x", "go.mod": GO, "package.json": "{}"}, "node"),
        ({"Procfile": "web: cd x && gunicorn a:b", "requirements.txt": "", "package.json": "{}"}, "python"),
        ({"requirements.txt": "", "package.json": '{"scripts": {"start": "node x"}}'}, "node"),
        ({"requirements.txt": "django", "manage.py": "", "package.json": '{"scripts": {"start": "x"}}'}, "python"),
        (
            {
                "requirements.txt": "flask",
                "app.py": "app = Flask(__name__)",
                "package.json": '{"scripts": {"start": "x"}}',
            },
            "python",
        ),
    ],
)
def test_detection(texts: dict[str, str], kind: Kind) -> None:
    assert planner.detect(folder(texts), Wishes()) == kind


def test_what_the_entry_says_wins() -> None:
    both = folder({"go.mod": GO, "compose.yaml": "", "package.json": "{}"})
    assert planner.detect(both, Wishes(runtime="compose")) == "compose"
    assert planner.detect(both, Wishes(command=("node", "x"))) == "node"
    assert planner.detect(folder({}), Wishes(command=("./run",))) == "command"
    assert planner.detect(folder({}), Wishes(compose_file=Path("/x/c.yml"))) == "compose"
    assert planner.without_toolchain("go", both, Wishes()) == "compose"
    assert planner.without_toolchain("go", folder({"Dockerfile": ""}), Wishes()) == "docker"
    assert planner.without_toolchain("go", both, Wishes(runtime="process")) is None


@pytest.mark.parametrize("runtime", ["auto", "process", "compose"])
def test_a_folder_that_says_nothing(runtime: str) -> None:
    with pytest.raises(PlanError, match="expected") as caught:
        planner.detect(folder({}, "README.md"), Wishes(runtime=runtime))
    assert caught.value.code == "build.undetected"


class TestGo:
    def test_the_module_root(self) -> None:
        facts = folder({"go.mod": GO}, mains=(".", "cmd/tool"))
        steps, _ = planner.plan_steps(resolution(facts), Built())
        assert [s.command.argv for s in steps] == [("/t/go/bin/go", "build", "-trimpath", "-o", "/b/output/shop", ".")]
        assert steps[0].command.env["GOTOOLCHAIN"] == "local"
        assert web(facts).argv == ("/b/output/shop",)

    @pytest.mark.parametrize(
        ("mains", "chosen"),
        [
            (("cmd/only",), "cmd/only"),
            (("cmd", "internal/gen"), "cmd"),
            (("cmd/shop", "cmd/zeta"), "cmd/shop"),
            (("cmd/migrate", "cmd/server"), "cmd/server"),
            (("deep/inside/app",), "deep/inside/app"),
        ],
    )
    def test_choice(self, mains: tuple[str, ...], chosen: str) -> None:
        assert golang.choose_mains(folder({"go.mod": GO}, mains=mains)) == (chosen,)

    def test_a_procfile_chooses(self) -> None:
        facts = folder(
            {"go.mod": GO, "Procfile": "worker: bin/work\nweb: bin/api -v"}, mains=(".", "cmd/api", "cmd/work")
        )
        assert golang.choose_mains(facts) == ("cmd/api", "cmd/work")
        plan = start(facts)
        assert plan.processes["web"].argv == ("/b/output/api", "-v")
        assert plan.processes["worker"].argv == ("/b/output/work",)

    def test_no_choice_says_what_to_write(self) -> None:
        with pytest.raises(PlanError, match="found 2: cmd/a, cmd/b") as caught:
            golang.choose_mains(folder({"go.mod": GO}, mains=("cmd/a", "cmd/b")))
        assert "command: bin/shop" in caught.value.hint
        with pytest.raises(PlanError, match="found none"):
            golang.choose_mains(folder({"go.mod": GO}))

    def test_versions_and_names(self) -> None:
        assert golang.needs(folder({"go.mod": GO})).minimum == (1, 22)
        assert golang.needs(folder({"go.mod": "module x\ngo 1.25.3\n"})).minimum == (1, 25, 3)
        assert golang.module_name(folder({"go.mod": "module github.com/a/b/v2\n"})) == "b"

    def test_own_build_commands(self) -> None:
        facts = folder({"go.mod": GO}, mains=("cmd/a", "cmd/b"))
        wishes = Wishes(build=(("go", "build", "-o", "bin/x", "./cmd/a"),), command=("sh", "-c", "bin/x"))
        steps, _ = planner.plan_steps(resolution(facts, wishes), Built())
        assert steps[0].command.argv[0] == "/t/go/bin/go"
        assert web(facts, wishes).argv == ("/usr/bin/sh", "-c", "bin/x")


FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"


class TestPython:
    @pytest.mark.parametrize(
        ("texts", "target", "folder_"),
        [
            ({"main.py": FASTAPI}, "main:app", "."),
            ({"app/main.py": FASTAPI, "app/__init__.py": ""}, "app.main:app", "."),
            ({"src/shop/api.py": FASTAPI, "src/shop/__init__.py": ""}, "shop.api:app", "src"),
            ({"backend/main.py": "import routes\n" + FASTAPI, "backend/routes.py": ""}, "main:app", "backend"),
            ({"main.py": "from fastapi import FastAPI as F\nservice: F = F()\n"}, "main:service", "."),
            ({"main.py": "import fastapi\nif True:\n    api = fastapi.FastAPI()\n"}, "main:api", "."),
            ({"main.py": "def make() -> FastAPI:\n    return build()\napp = make()\n"}, "main:app", "."),
            ({"wsgi.py": "from shop import create_app\napp = create_app()\n", "shop/__init__.py": ""}, "wsgi:app", "."),
            ({"tests/app.py": FASTAPI, "server.py": FASTAPI}, "server:app", "."),
        ],
    )
    def test_the_application_object(self, texts: dict[str, str], target: str, folder_: str) -> None:
        entry = find_entry(folder({"requirements.txt": "", **texts}), frozenset({"fastapi"}))
        assert entry is not None
        assert (f"{entry.module}:{entry.attribute}", entry.folder) == (target, folder_)

    @pytest.mark.parametrize(
        "text",
        ["app = object()", "def f():\n    app = FastAPI()", "FastAPI(",
         "if __name__ == '__main__':\n    app = FastAPI()",
         "print 'FastAPI'", "x = " + "(" * 300 + "FastAPI()" + ")" * 300],
    )  # fmt: skip
    def test_no_application_object(self, text: str) -> None:
        assert find_entry(folder({"main.py": text}), frozenset()) is None

    def test_factories(self) -> None:
        text = "def create_app(config=None):\n    app = Flask(__name__)\n    return app\n"
        entry = find_entry(folder({"app.py": text}), frozenset())
        assert entry is not None
        assert (entry.factory, entry.interface) == (True, "wsgi")
        assert find_entry(folder({"app.py": text.replace("=None", "")}), frozenset()) is None

    @pytest.mark.parametrize(
        ("requirement", "code", "server", "argv"),
        [
            (
                "fastapi\nuvicorn", FASTAPI, "uvicorn",
                ("/v/bin/uvicorn", "main:app", "--host", "127.0.0.1", "--port", "$PORT"),
            ),
            ("fastapi\nhypercorn", FASTAPI, "hypercorn", ("/v/bin/hypercorn", "main:app", "--bind", "127.0.0.1:$PORT")),
            (
                "flask\ngunicorn", "app = Flask(1)", "gunicorn",
                ("/v/bin/gunicorn", "main:app", "--bind", "127.0.0.1:$PORT"),
            ),
            (
                "flask\nwaitress", "app = Flask(1)", "waitress-serve",
                ("/v/bin/waitress-serve", "--host", "127.0.0.1", "--port", "$PORT", "main:app"),
            ),
            ("fastapi\ndaphne", FASTAPI, "daphne", ("/v/bin/daphne", "-b", "127.0.0.1", "-p", "$PORT", "main:app")),
            (
                "fastapi\ngranian", FASTAPI, "granian",
                ("/v/bin/granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "$PORT", "main:app"),
            ),
        ],
    )  # fmt: skip
    def test_the_server_that_the_app_names(
        self, requirement: str, code: str, server: str, argv: tuple[str, ...]
    ) -> None:
        facts = folder({"requirements.txt": requirement, "main.py": code})
        assert web(facts, built=venv(server, "python", "uvicorn", "gunicorn")).argv == argv

    def test_a_server_is_added_where_none_is_named(self) -> None:
        flask = folder({"requirements.txt": "flask", "main.py": "app = Flask(1)"})
        assert python.added_servers(flask, read_dependencies(flask), named=False) == ("gunicorn",)
        assert python.added_servers(flask, read_dependencies(flask), named=True) == ()
        fastapi = folder({"requirements.txt": "fastapi[standard]", "main.py": FASTAPI})
        assert python.added_servers(fastapi, read_dependencies(fastapi), named=False) == ()

    def test_scripts_are_the_last_resort(self) -> None:
        script = '[project]\nname="x"\nscripts = {shop = "shop.cli:main"}\n'
        assert web(folder({"pyproject.toml": script})).argv[:2] == ("/v/bin/python", "-c")
        assert web(folder({"requirements.txt": "", "server.py": "x"})).argv == ("/v/bin/python", "server.py")
        with pytest.raises(PlanError, match="expected an application object"):
            web(folder({"requirements.txt": ""}))

    def test_a_procfile_uses_the_environment(self) -> None:
        facts = folder({"requirements.txt": "", "Procfile": "web: gunicorn a:b\nrelease: python manage.py migrate"})
        plan = start(facts, built=venv("gunicorn"))
        assert plan.processes["web"].argv == ("/v/bin/gunicorn", "a:b")
        assert plan.processes["web"].env["PATH"].startswith("/v/bin:")
        assert plan.before is not None
        assert plan.before.argv == ("/v/bin/python", "manage.py", "migrate")
        assert "release" not in plan.processes

    def test_dependencies(self) -> None:
        files = {"requirements.txt": "-r base.txt\nFlask_Cors==1 # x\n", "base.txt": "Django>=4\n"}
        found = read_dependencies(folder(files))
        assert (found.arguments, found.names) == (("-r", "requirements.txt"), {"django", "flask-cors"})
        assert not found.whole_source
        assert read_dependencies(folder({"requirements.txt": "-e .\n"})).whole_source
        assert read_dependencies(folder({"requirements.txt": "-r gone.txt\n"})).arguments == ("-r", "requirements.txt")
        poetry = '[tool.poetry.dependencies]\npython="^3.9"\nfastapi="^0.79"\nx={version="~1.2", extras=["a"]}\n'
        assert read_dependencies(folder({"pyproject.toml": poetry})).listing == (
            "fastapi>=0.79,<0.80",
            "x[a]>=1.2,<1.3",
        )
        pip = {"Pipfile": "", "Pipfile.lock": '{"default": {"flask": {"version": "==1.0"}}}'}
        assert read_dependencies(folder(pip)).listing == ("flask==1.0",)
        assert read_dependencies(folder({"setup.py": ""})).whole_source

    def test_lock_files_constrain_and_add_nothing(self) -> None:
        poetry = '[tool.poetry.dependencies]\nfastapi="^0.79"\n'
        lock = (
            '[[package]]\nname = "FastAPI"\nversion = "0.79.1"\n[[package]]\nname = "x"\nversion = "1"\n'
            '[package.source]\ntype = "git"\n[[package]]\nname = "n"\nversion = "1"\n'
            '[[package]]\nname = "n"\nversion = "2"\n'
        )
        found = read_dependencies(folder({"pyproject.toml": poetry, "poetry.lock": lock}))
        assert (found.listing, found.locked) == (("fastapi>=0.79,<0.80",), ("fastapi==0.79.1",))
        assert found.said_in == ("pyproject.toml", "poetry.lock")
        own = Tool("/usr/bin/python3", (3, 12))
        plan = python.plan_environment(LAYOUT, own, None, found, extras=(), listing=Path("/l/r.txt"))
        assert plan.steps[1].command.argv[-2:] == ("-c", "/l/fairway-constraints.txt")
        assert plan.steps[1].otherwise is not None
        uv = '[[package]]\nname = "a"\nversion = "1"\nsource = { registry = "https://x" }\n[[package]]\nname = "shop"\n'
        project = {"pyproject.toml": '[project]\nname="shop"\ndependencies=["a"]\n', "uv.lock": uv}
        assert read_dependencies(folder(project)).locked == ("a==1",)

    @pytest.mark.parametrize(
        ("constraint", "specifier"),
        [("^0.0.3", ">=0.0.3,<0.0.4"), ("^2", ">=2,<3"), ("~2", ">=2,<3"), ("~=1.4", "~=1.4"), (">=1 || <0", ">=1")],
    )
    def test_poetry_constraints(self, constraint: str, specifier: str) -> None:
        assert to_pep440(constraint) == specifier

    def test_the_key_of_an_environment(self) -> None:
        facts = folder({"requirements.txt": "flask"})
        found = read_dependencies(facts)
        base = environment_key(facts, found, (), "3.11", "a")
        assert base == environment_key(facts, found, (), "3.11", "b"), "a change of the source alone keeps it"
        assert base != environment_key(facts, found, ("gunicorn",), "3.11", "a")
        assert base != environment_key(facts, found, (), "3.12", "a")
        assert base != environment_key(folder({"requirements.txt": "flask==3"}), found, (), "3.11", "a")
        local = dataclasses.replace(found, whole_source=True)
        assert environment_key(facts, local, (), "3.11", "a") != environment_key(facts, local, (), "3.11", "b")

    def test_uv_or_pip(self) -> None:
        found = Dependencies(("-r", "requirements.txt"), (), frozenset({"a"}))
        own, uv = Tool("/usr/bin/python3", (3, 12)), Tool("/usr/bin/uv", (0, 9))
        plan = python.plan_environment(LAYOUT, own, None, found, extras=(), listing=Path("/l"))
        assert [s.command.argv[0] for s in plan.steps] == ["/usr/bin/python3", "/v/bin/python"]
        plan = python.plan_environment(LAYOUT, own, uv, found, extras=("gunicorn",), listing=Path("/l"))
        assert [s.command.argv[:2] for s in plan.steps] == [("/usr/bin/uv", "venv"), ("/usr/bin/uv", "pip")]
        assert plan.steps[1].command.argv[-2:] == ("-r", "/l")


def package(**fields: object) -> str:
    import json

    return json.dumps(fields)


NEXT = "/b/source/node_modules/next/dist/bin/next"


class TestNode:
    @pytest.mark.parametrize(
        ("script", "argv", "env"),
        [
            ("node server.js", ("/t/node/bin/node", "server.js"), {}),
            ("NODE_ENV=x node --inspect a.js", ("/t/node/bin/node", "--inspect", "a.js"), {"NODE_ENV": "x"}),
            ("cross-env A=1 node a.js", ("/t/node/bin/node", "a.js"), {"A": "1"}),
            ("nodemon --watch src -e js,json a.js b", ("/t/node/bin/node", "a.js", "b"), {}),
            ("nodemon a.js", ("/t/node/bin/node", "a.js"), {}),
            ("next start", ("/t/node/bin/node", NEXT, "start"), {}),
            ("npx next start -p $PORT", ("/t/node/bin/node", NEXT, "start", "-p", "${PORT}"), {}),
            ("npm run build && node dist/a.js", ("/t/node/bin/node", "dist/a.js"), {}),
            ("npm run serve", ("/t/node/bin/node", "served.js"), {}),
            ("yarn serve -- --x", ("/t/node/bin/node", "served.js", "--x"), {}),
            ("a.js", ("/t/node/bin/node", "a.js"), {}),
        ],
    )  # fmt: skip
    def test_scripts_become_the_program_itself(self, script: str, argv: tuple[str, ...], env: dict[str, str]) -> None:
        facts = folder({"package.json": package(scripts={"start": script, "serve": "node served.js"})})
        command = web(facts, built=bins(next="next/dist/bin/next"))
        assert command.argv == argv
        assert {k: v for k, v in command.env.items() if k != "PATH"} == env

    def test_the_last_resort_is_a_shell_that_gives_way(self) -> None:
        facts = folder({"package.json": package(scripts={"start": "node seed.js && node a.js"})})
        assert web(facts).argv == ("/bin/sh", "-c", "node seed.js && exec node a.js")
        assert web(facts).env["PATH"].startswith("/b/source/node_modules/.bin:/t/node/bin:")

    def test_production_scripts_come_first(self) -> None:
        facts = folder({"package.json": package(scripts={"start": "nest start", "start:prod": "node dist/main"})})
        assert web(facts).argv == ("/t/node/bin/node", "dist/main")

    def test_main_and_the_usual_files(self) -> None:
        assert web(folder({"package.json": package(main="./lib/a")}, "lib/a.js")).argv == (
            "/t/node/bin/node",
            "lib/a.js",
        )
        assert web(folder({"package.json": "{}"}, "app.js", "index.js")).argv[-1] == "index.js"
        with pytest.raises(PlanError, match=r"scripts\.start"):
            web(folder({"package.json": "{}"}))

    def test_scripts_in_a_circle(self) -> None:
        facts = folder({"package.json": package(scripts={"start": "npm run a", "a": "npm start"})})
        with pytest.raises(PlanError, match="circle"):
            web(facts)

    @pytest.mark.parametrize(
        ("files", "commands"),
        [
            (("package-lock.json",), ["ci"]),
            ((), ["install"]),
            (("yarn.lock",), ["exec --yes --package=yarn@1 -- yarn install --frozen-lockfile"]),
            (("pnpm-lock.yaml",), ["exec --yes --package=pnpm@9 -- pnpm install --frozen-lockfile"]),
        ],
    )
    def test_the_lock_file_decides(self, files: tuple[str, ...], commands: list[str]) -> None:
        steps, notes = planner.plan_steps(resolution(folder({"package.json": "{}"}, *files)), Built())
        assert [" ".join(s.command.argv[1:]) for s in steps] == commands
        assert bool(notes) == (files == ())

    def test_versions_of_package_managers(self) -> None:
        berry = folder({"package.json": package(packageManager="yarn@4.1.0")}, "yarn.lock")
        steps, _ = planner.plan_steps(resolution(berry), Built())
        assert "--package=@yarnpkg/cli-dist@4.1.0" in steps[0].command.argv
        assert steps[0].command.argv[-1] == "--immutable"

    def test_build_scripts(self) -> None:
        steps, _ = planner.plan_steps(resolution(folder({"package.json": package(scripts={"build": "tsc"})})), Built())
        assert steps[-1].command.argv == ("/t/node/bin/npm", "run", "build")
        assert node.needs(folder({"package.json": package(engines={"node": ">=22"})})).minimum == (22,)

    @pytest.mark.parametrize(
        "text", ["{", "[]", "[" * 5000, '{"scripts": []}', '{"scripts": {"start": 1}, "engines": "x"}']
    )
    def test_hostile_packages(self, text: str) -> None:
        with pytest.raises(PlanError):
            web(folder({"package.json": text}))


class TestDotnet:
    WEB = '<Project Sdk="Microsoft.NET.Sdk.Web"><TargetFramework>net8.0</TargetFramework></Project>'

    def test_publish_and_start(self) -> None:
        facts = folder({"Shop.csproj": self.WEB})
        steps, notes = planner.plan_steps(resolution(facts), Built())
        argv = steps[0].command.argv
        assert argv[:7] == ("/t/dotnet/dotnet", "publish", "Shop.csproj", "-c", "Release", "-o", "/b/output")
        assert not any("TargetFramework" in word for word in argv)
        assert notes == ()
        plan = start(facts, built=Built(outputs=frozenset({"Shop.runtimeconfig.json", "Shop.dll"})))
        assert plan.processes["web"].argv == ("/t/dotnet/dotnet", "/b/output/Shop.dll")
        assert plan.env["ASPNETCORE_URLS"] == "http://127.0.0.1:$PORT"
        with pytest.raises(PlanError, match="got a library"):
            start(facts, built=Built())

    @pytest.mark.parametrize(
        ("text", "sdk", "override"),
        [
            ("<TargetFramework>net8.0</TargetFramework>", (8, 0, 1), None),
            ("<TargetFramework>net8.0</TargetFramework>", (9, 0, 1), None),
            ("<TargetFramework>net8.0</TargetFramework>", (10, 0, 100), None),
            ("<TargetFramework>net10.0</TargetFramework>", (8, 0, 404), "net8.0"),
            ("<TargetFramework>net10.0</TargetFramework>", (9, 0, 302), "net9.0"),
            ("<TargetFramework>net8.0</TargetFramework>", (6, 0, 1), "net6.0"),
            ("<TargetFramework>net8.0</TargetFramework>", (3, 1, 426), "netcoreapp3.1"),
            ("<TargetFrameworks>net6.0;net8.0;net10.0</TargetFrameworks>", (8, 0, 1), "net8.0"),
            ("<TargetFramework>netstandard2.0</TargetFramework>", (8, 0, 1), None),
            ("<TargetFramework>$(X)</TargetFramework>", (8, 0, 1), None),
            ("", (8, 0, 1), None),
        ],
    )
    def test_frameworks(self, text: str, sdk: tuple[int, ...], override: str | None) -> None:
        assert dotnet.framework_override(text, sdk) == override

    def test_choice_of_the_project(self) -> None:
        library, tests = "<Project Sdk='x'/>", "src/Shop.Tests.csproj"
        assert dotnet.choose_project(folder({"a/Lib.csproj": library, "b/Api.csproj": self.WEB})) == "b/Api.csproj"
        assert dotnet.choose_project(folder({"Api.csproj": self.WEB, tests: self.WEB})) == "Api.csproj"
        assert dotnet.choose_project(folder({"a/Api.csproj": self.WEB, "b/Shop.csproj": self.WEB})) == "b/Shop.csproj"
        with pytest.raises(PlanError, match=r"found: a/A\.csproj, b/B\.csproj"):
            dotnet.choose_project(folder({"a/A.csproj": self.WEB, "b/B.csproj": self.WEB}))


def test_processes_of_the_entry_come_over_the_procfile() -> None:
    facts = folder({"requirements.txt": "", "Procfile": "web: gunicorn a:b\nworker: python old.py\nclock: python c.py"})
    wishes = Wishes(processes={"worker": ("python", "new.py")})
    plan = start(facts, wishes, venv("gunicorn"))
    assert list(plan.processes) == ["web", "clock", "worker"]
    assert plan.processes["worker"].argv == ("/v/bin/python", "new.py")


def test_a_program_that_is_nowhere() -> None:
    about = dataclasses.replace(resolution(folder({}), Wishes(command=("nosuch",))), find_program=lambda _: None)
    with pytest.raises(PlanError, match="expected the program 'nosuch'"):
        planner.plan_start(about, Built())
