#!/usr/bin/env python3
"""Finds phrases that are hard to read in the text of the project: comments, strings of src/, and documents.

    python3 tests/phrases.py             lists each with file, line and what to write instead; exits with 1 if there is one
    python3 tests/phrases.py --count     prints the number for each phrase

The phrases are in tests/phrases.txt: a regular expression, a tab, and what to write instead. Case does not matter. A space matches a
line break inside one comment. A line that quotes a phrase on purpose ends with "phrases: quoted".
"""
import collections, pathlib, re, subprocess, sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Captured replies and clients' own texts are not ours. A changelog keeps the text of past releases.
LEFT_OUT = ("tests/data/", "tests/fuzz/corpus/", "tests/phrases.", "Cargo.lock", "LICENSE")
RUST = re.compile(
    r"""(?P<comment>(?://[^\n]*(?:\n[ \t]*(?=//))?)+)|(?P<raw>r(?P<hashes>\#*)".*?"(?P=hashes))|(?P<string>"(?:\\.|[^"\\])*")|'(?:\\.|[^'\\\n])'""",
    re.DOTALL | re.VERBOSE)
HASH_COMMENT = re.compile(r"(?:^[ \t]*#[^\n]*(?:\n(?=[ \t]*#))?)+|[ \t]#[ \t][^\n]*", re.MULTILINE)


def texts(path, content):
    """Offsets and texts of a file that people read."""
    if path.suffix == ".rs":
        in_src = path.parts[0] == "src"
        for match in RUST.finditer(content):
            if match["comment"] or in_src and (match["string"] or match["raw"]):
                yield match.start(), match[0]
    elif path.suffix in (".md", ".html", ".txt"):
        yield 0, content
    elif path.suffix == ".py":
        for match in re.finditer(r'""".*?"""', content, re.DOTALL):
            yield match.start(), match[0]
        yield from ((match.start(), match[0]) for match in HASH_COMMENT.finditer(content))
    elif path.suffix in (".sh", ".toml", ".yaml", ".yml", ".service", ".socket") or path.name == "Dockerfile":
        yield from ((match.start(), match[0]) for match in HASH_COMMENT.finditer(content))


def flat(text):
    """The text with marks of comments and line breaks turned into spaces, each offset kept."""
    def blank(match):
        return " " * len(match[0])
    return re.sub(r"\n[ \t]*(?://[/!]?|#|\\)?|\\n|^(?://[/!]?|#)", blank, text)


def tracked():
    """Names of the project's files: those that git knows or, without a repository, all but build products."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    if listed.returncode == 0:
        return listed.stdout.splitlines()
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [str(path) for path in paths if "target" not in path.parts and ".git" not in path.parts]


def main():
    lines = (ROOT / "tests/phrases.txt").read_text().splitlines()
    pairs = [line.split("\t") for line in lines if line and not line.startswith("#")]
    phrases = [(re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE), pattern, instead) for pattern, instead in pairs]
    files = tracked()
    counts = collections.Counter()
    for name in files:
        path = ROOT / name
        if name.startswith(LEFT_OUT) or not path.is_file():
            continue
        try:
            content = path.read_text()
        except UnicodeDecodeError:
            continue
        for offset, text in texts(pathlib.Path(name), content):
            plain = flat(text)
            for pattern, source, instead in phrases:
                for match in pattern.finditer(plain):
                    at = offset + match.start()
                    line = content.count("\n", 0, at)
                    if content.split("\n", line + 1)[line].rstrip().endswith("phrases: quoted"):
                        continue
                    counts[source] += 1
                    if "--count" not in sys.argv:
                        shown = " ".join(plain[max(0, match.start() - 40):match.end() + 40].split())
                        print(f"{name}:{line + 1}: “…{shown}…”: write {instead}")
    if "--count" in sys.argv:
        for source, count in counts.most_common():
            print(f"{count:5}  {source}")
    print(f"phrases: {counts.total()}")
    return 1 if counts else 0


if __name__ == "__main__":
    sys.exit(main())
