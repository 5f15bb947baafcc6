"""No module decides by the words of a sentence: words are made for people, and may be put better at any time."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "routemesh"
TOLD = frozenset({"why", "what", "end", "verdict", "found", "effect", "fix", "note", "notes", "text", "loses", "evidence"})
"""Fields that hold words for people."""
WORDS = frozenset({"of_event", "of_end", "of_doubt", "of_cause", "ending"})
"""What makes them (reasons.words; the end of a way)."""
CUTTING = frozenset({"partition", "rpartition", "split", "rsplit", "removeprefix", "removesuffix"})
SEARCHING = CUTTING | {"startswith", "endswith", "find", "index", "count"}
MATCHING = frozenset({"match", "fullmatch", "search", "findall", "finditer", "sub", "split"})
NO_SENTENCES = {
    ("trace/compare.py", "seen.verdict"), ("trace/story.py", "seen.verdict"), ("sight/nftrace.py", "event.verdict"),
    ("explain/picture/mermaid.py", "cable.end"), ("explain/cause.py", "reason.end"), ("explain/way.py", "hop.event.end"),
}  # fmt: skip
"""Fields of such a name that hold something else: a word of a fixed few, which nftables says of a rule; where a cable ends; a
reason; which end of a connection was translated."""


def is_told(node: ast.expr) -> bool:
    """Whether it is a sentence: a field of that kind, or what a function made that puts things in words."""
    if isinstance(node, ast.Attribute):
        return node.attr in TOLD
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        return called in WORDS or (receiver is not None and called in SEARCHING | {"lower", "strip"} and is_told(receiver))
    return False


def in_one_line(tree: ast.AST) -> Iterator[ast.expr]:
    """What is taken apart only to be put together again: `" ".join(text.split())`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
            yield from (each for each in node.args if isinstance(each, ast.Call))


def decisions(tree: ast.AST) -> Iterator[tuple[ast.expr, int]]:
    """The sentences that are compared or searched, with their lines."""
    laid_out = set(in_one_line(tree))
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=others, ops=ops):
                compared = [left, *others]
                whether_any = any(isinstance(other, ast.Constant) and other.value == "" for other in compared)
                if not whether_any and not isinstance(ops[0], ast.Is | ast.IsNot):
                    yield from ((each, node.lineno) for each in compared if is_told(each))
            case ast.Call(func=ast.Attribute(value=receiver, attr=method)) if method in SEARCHING and is_told(receiver):
                if node not in laid_out:
                    yield receiver, node.lineno
            case ast.Call(func=ast.Attribute(attr=method), args=arguments) if method in MATCHING:
                yield from ((each, node.lineno) for each in arguments if is_told(each))
            case ast.Match(subject=subject) if is_told(subject):
                yield subject, node.lineno


def in_file(path: Path) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    found = [(ast.unparse(sentence), line) for sentence, line in decisions(ast.parse(path.read_text()))]
    return [f"{name}:{line}: {sentence}" for sentence, line in found if (name, sentence) not in NO_SENTENCES]


def test_no_module_compares_or_searches_a_sentence() -> None:
    found = [each for path in sorted(ROOT.rglob("*.py")) for each in in_file(path)]
    assert not found, "decide by the reason's value instead (routemesh.reasons): " + "; ".join(found)


@pytest.mark.parametrize(
    "code",
    [
        'x = "nothing listens" in cause.why',
        'x = hop.what.startswith("dropped")',
        'x = PATTERN.search(step.what)',
        'x = re.sub("a", "b", cause.why)',
        'x = of_end(end) == "it is down"',
        'x = cause.why in way.end',
        'x = step.what.split()[1] == "a"',
        'match cause.why:\n    case "a":\n        pass',
        "x = of_cause(reason).removeprefix(START)",
    ],
)  # fmt: skip
def test_a_sentence_that_decides_is_found(code: str) -> None:
    assert list(decisions(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        'x = " ".join(cause.why.split())',
        'x = cause.why == ""',
        "x = cause.why or step.what",
        "print(step.what)",
        "x = step.why is None",
    ],
)
def test_a_sentence_that_is_only_told_is_not(code: str) -> None:
    assert not list(decisions(ast.parse(code)))
