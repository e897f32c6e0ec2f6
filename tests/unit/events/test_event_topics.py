"""Topics and patterns."""

import pytest

from fairway.events.errors import InvalidTopic
from fairway.events.topic import check_topic, matcher


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.bc", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        (">", "a.b.c", True),
        (">", "$dead.g", False),
        ("*.g", "$dead.g", False),
        ("$dead.*", "$dead.g", True),
        ("$dead.>", "$dead.g", True),
        ("a.*.c", "a.x.c", True),
        ("a.*.>", "a.x.c.d", True),
        ("a-1.*", "a-1.x_2", True),
    ],
)
def test_pattern(pattern: str, topic: str, expected: bool) -> None:
    assert matcher(pattern)(topic) is expected


@pytest.mark.parametrize("pattern", ["", ".", "a.", ".a", "a..b", "a.>.b", "a b", "a*", "**", "a\n", "a" * 256, "a.$b"])
def test_bad_pattern(pattern: str) -> None:
    with pytest.raises(InvalidTopic):
        matcher(pattern)


@pytest.mark.parametrize("topic", ["", "*", ">", "a.*", "a.>", "a..b", "a/b", "a\n", "é", "a" * 256])
def test_bad_topic(topic: str) -> None:
    with pytest.raises(InvalidTopic):
        check_topic(topic)
