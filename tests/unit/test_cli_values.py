"""What people type for one value: docker's notations, and a sentence for everything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routemesh.cli import values
from routemesh.model import Protocol, Publish

TCP, UDP = Protocol.TCP, Protocol.UDP


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", Publish(published=8080, target=80)),
        ("8080:80/tcp", Publish(published=8080, target=80)),
        ("53:5353/udp", Publish(published=53, target=5353, protocol=UDP)),
        ("published=8080,target=80", Publish(published=8080, target=80)),
        ("target=80,publish=8080,protocol=udp,mode=ingress", Publish(published=8080, target=80, protocol=UDP)),
        ("published=65535,target=1", Publish(published=65535, target=1)),
    ],
)
def test_published_ports(text: str, expected: Publish) -> None:
    assert values.publish(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("80", "'80' has a target port and no published one; write PUBLISHED:80"),
        (":80", "':80' has a target port and no published one; write PUBLISHED:80"),
        ("8080:", "'8080:' has a published port and no target; write 8080:TARGET"),
        ("", "'' is not of the form PUBLISHED:TARGET"),
        (":", "':' is not of the form PUBLISHED:TARGET"),
        ("127.0.0.1:8080:80", "is not of the form PUBLISHED:TARGET[/PROTOCOL]; every node answers on all its addresses"),
        ("8080-8081:80-81", "ranges are not supported; publish the ports one by one"),
        ("0:80", "'0' is not a port; use 1-65535"),
        ("8080:65536", "'65536' is not a port; use 1-65535"),
        ("8080:-1", "ranges are not supported"),
        ("x:80", "'x' is not a port"),
        ("٨٠:80", "is not a port"),
        ("9" * 5000 + ":80", "is not a port"),
        ("8080:80/", "'' is not a protocol; use tcp or udp"),
        ("8080:80/sctp", "'sctp' is not a protocol; use tcp or udp"),
        ("published=8080", "'published=8080' has no target port; add target=PORT"),
        ("target=80", "'target=80' has no published port; add published=PORT"),
        ("published=8080,target=80,mode=host", "mode=host is not supported yet; use mode=ingress"),
        ("published=8080,target=80,colour=red", "'colour=red' is not one of published=…, target=…, protocol=…, mode=…"),
        ("published=8080,80", "'80' is not one of"),
        ("published=8080,target=80,protocol=", "'' is not a protocol"),
    ],
)
def test_wrong_ports(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.publish(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80", (80, TCP)), ("80/udp", (80, UDP)), ("8080:80/udp", (80, UDP)), ("published=1,target=2", (2, TCP))],
)
def test_target_ports(text: str, expected: tuple[int, Protocol]) -> None:
    assert values.target(text) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), (".5s", 0.5), ("1h1m1s1ms", 3661.001)],
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "10 s", "10S", "1d", "ten", "1m30", "1e3s", "٣s", "9" * 400 + "s"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; write it as 1m30s|is longer than 10 years"):
        values.duration_s(text)


@pytest.mark.parametrize(("text", "expected"), [("web=3", ("web", 3)), ("a=b=0", ("a=b", 0))])
def test_scales(text: str, expected: tuple[str, int]) -> None:
    assert values.scale(text) == expected


@pytest.mark.parametrize("text", ["web", "=3", "web=", "web=-1", "web=x", "web=1.5"])
def test_wrong_scales(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not of the form SERVICE=REPLICAS|is not a number of replicas"):
        values.scale(text)


def test_environment_is_taken_from_here_without_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET_HERE", "a=b")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert [values.environment(text) for text in ("A=b=c", "A=", "SET_HERE")] == ["A=b=c", "A=", "SET_HERE=a=b"]
    with pytest.raises(ValueError, match="'NOT_SET' is not set here; write NOT_SET=VALUE"):
        values.environment("NOT_SET")
    with pytest.raises(ValueError, match="has no key"):
        values.environment("=x")


def test_words_are_split_as_a_shell_does() -> None:
    assert values.words("""sh -c 'echo "hi"' x""") == ("sh", "-c", 'echo "hi"', "x")
    with pytest.raises(ValueError, match="can't be split into words: no closing quotation"):
        values.words("it's")


PARSERS = (
    values.publish, values.target, values.duration_s, values.scale, values.pair, values.environment, values.words,
    values.lines, values.address, values.subnet,
)  # fmt: skip


@given(st.sampled_from(PARSERS), st.text() | st.from_regex(r"[0-9a-z:=/,.-]{0,12}", fullmatch=True))
def test_any_text_is_a_value_or_a_value_error(parse: object, text: str) -> None:
    assert callable(parse)
    try:
        parse(text)
    except ValueError as exc:
        assert str(exc)
