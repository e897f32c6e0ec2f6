"""Heads met again, and identifiers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from fairway.proxy.identifiers import request_ids, traceparents
from fairway.proxy.memo import HEAD_BYTES, HEADS, Memo
from fairway.proxy.request import RequestHead


def test_memo_keeps_what_comes_twice_and_forgets_it() -> None:
    memo: Memo[RequestHead] = Memo()
    one = RequestHead(False)
    memo.meet(b"a", one)
    assert len(memo) == 0, "what comes once is not worth its place, nor the secrets in it the risk"
    memo.meet(b"a", one)
    assert memo.young == {b"a": one}
    memo.age()
    assert not memo.young
    assert memo.recall(b"a") is one
    assert memo.young == {b"a": one}
    memo.age()
    memo.age()
    assert memo.recall(b"a") is None
    assert len(memo) == 0


def test_memo_is_bounded() -> None:
    memo: Memo[RequestHead] = Memo()
    one = RequestHead(False)
    for number in range(5 * HEADS):
        memo.meet(b"%d" % number, one)
        memo.meet(b"%d" % number, one)
    assert HEADS <= len(memo) <= 2 * HEADS
    for _ in range(2):
        memo.meet(b"x" * (HEAD_BYTES + 1), one)
    assert b"x" * (HEAD_BYTES + 1) not in memo.young
    for number in range(100_000):
        memo.meet(b"once %d" % number, one)
    assert len(memo._seen) <= 4096


def test_identifiers_differ() -> None:
    one, other = request_ids(), request_ids()
    made = list(itertools.islice(one, 10_000)) + list(itertools.islice(other, 10_000))
    assert len(set(made)) == 20_000
    assert all(len(value) == 21 and value.isalnum() for value in made)
    traces: Iterator[bytes] = traceparents()
    found = list(itertools.islice(traces, 1000))
    assert len({value[3:35] for value in found}) == len({value[36:52] for value in found}) == 1000
    head_ = RequestHead(False)
    for value in found:
        head_.on_header(b"traceparent", value)
        assert head_.traceparent == value
