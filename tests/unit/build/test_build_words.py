"""Command lines of Procfiles and scripts: taken apart without a shell where that is safe, left to one where not."""

from __future__ import annotations

import pytest

from fairway.build.words import Line, parse_line, parse_procfile


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("node server.js", Line(("node", "server.js"))),
        ("exec gunicorn app:app", Line(("gunicorn", "app:app"))),
        ("A=1 B='x y' python main.py", Line(("python", "main.py"), {"A": "1", "B": "x y"})),
        ("uvicorn a:b --port ${PORT:-8000}", Line(("uvicorn", "a:b", "--port", "${PORT}"))),
        ("uvicorn a:b --port=$PORT", Line(("uvicorn", "a:b", "--port=${PORT}"))),
        (
            'gunicorn "app:create_app()" -b 0.0.0.0:$PORT',
            Line(("gunicorn", "app:create_app()", "-b", "0.0.0.0:${PORT}")),
        ),
        ("echo 'a $HOME; b'", Line(("echo", "a $HOME; b"))),
    ],
)
def test_simple_lines_need_no_shell(text: str, line: Line) -> None:
    assert parse_line(text) == line


@pytest.mark.parametrize(
    ("text", "shell"),
    [
        ("cd web && node index.js", "cd web && exec node index.js"),
        ("a; b && c d", "a; b && exec c d"),
        ("node x --home $HOME", "exec node x --home $HOME"),
        ("node x | tee log", "node x | tee log"),
        ("node x > log", "exec node x > log"),
        ("(a; b)", "(a; b)"),
        ("A=1 && B=2 c", "A=1 && B=2 c"),
        ("echo 'x && y' && node z", "echo 'x && y' && node z"),
        ("if true; then a; fi", "if true; then a; fi"),
        ("echo $PORTAL", "exec echo $PORTAL"),
        ("echo `id`", "exec echo `id`"),
        ('echo "$HOME"', 'exec echo "$HOME"'),
        ("echo 'unclosed", "exec echo 'unclosed"),
    ],
)
def test_what_needs_a_shell_keeps_its_text_and_ends_in_an_exec(text: str, shell: str) -> None:
    line = parse_line(text)
    assert (line.words, line.shell) == ((), shell)


def test_a_procfile() -> None:
    text = "# header\n\nweb: node a.js\r\nworker-1:   python b.py \nrelease: ./m migrate\n#web: old\nnot a line\n: x\n"
    lines = parse_procfile(text)
    assert {name: line.words for name, line in lines.items()} == {
        "web": ("node", "a.js"),
        "worker-1": ("python", "b.py"),
        "release": ("./m", "migrate"),
    }


def test_the_port_is_put_in_when_an_instance_starts() -> None:
    from fairway.run.release import with_port

    assert with_port("--bind=0.0.0.0:${PORT}", 81) == "--bind=0.0.0.0:81"
    assert with_port("$PORT:$PORT", 81) == "81:81"
    assert with_port("$PORT_X $PORTS ${PORTS}", 81) == "$PORT_X $PORTS ${PORTS}"
    assert with_port("http://127.0.0.1:$PORT/", 81) == "http://127.0.0.1:81/"
    assert with_port("PORT", 81) == "PORT"
