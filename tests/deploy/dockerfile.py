"""Executes a Dockerfile's COPY and RUN steps without Docker, in a directory, with the files that .dockerignore admits. Prints the resulting
image's settings as JSON.

    dockerfile.py [--really]

A script stands in for Cargo: it checks the manifest and the lock file, and creates an empty program. With --really, Cargo builds, which takes
minutes, and the image's program is run. The check names the platform, because Cargo would otherwise need the crates of Windows and others,
too, which a build on this machine does not download.
"""
import fnmatch, json, os, re, shutil, subprocess, sys, tempfile

CARGO = """#!/bin/sh
set -e
"{cargo}" metadata --offline --locked --filter-platform host-tuple --format-version 1 >/dev/null
test -f src/main.rs && test -f src/lib.rs
mkdir -p target/release/.fingerprint/pontoon-0
: >target/release/pontoon
"""


def instructions(path):
    with open(path) as file:
        lines = [line for line in file.read().splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            yield line.split(None, 1)


def context():
    """Returns the top-level names of the build context."""
    with open(".dockerignore") as file:
        patterns = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    names = set()
    for pattern in patterns:
        matching = {name for name in os.listdir(".") if fnmatch.fnmatch(name, pattern.lstrip("!"))}
        names = names | matching if pattern.startswith("!") else names - matching
    return names


def copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def follow(root, environment):
    sent, stages, image = context(), {}, {}
    for word, rest in instructions("Dockerfile"):
        if word == "FROM":
            name = rest.split()[-1]
            image = {"stage": os.path.join(root, re.sub(r"\W", "_", name)), "from": rest.split()[0]}
            stages[name] = image
        elif word == "WORKDIR":
            image["directory"] = rest
            os.makedirs(image["stage"] + rest)
        elif word == "COPY":
            words = rest.split()
            origin = stages[words.pop(0)[len("--from="):]]["stage"] if words[0].startswith("--from=") else None
            *sources, target = words
            target = os.path.join(image.get("directory", "/"), target)
            for source in sources:
                if origin is None and source not in sent:
                    sys.exit(f"COPY {source}: .dockerignore excludes it")
                end = target if not target.endswith("/") else target + os.path.basename(source)
                copy(origin + source if origin else source, image["stage"] + os.path.normpath(end))
        elif word == "RUN":
            subprocess.run(["sh", "-ec", rest], cwd=image["stage"] + image["directory"], env=environment, check=True, stdout=sys.stderr)
        elif word in ("ENTRYPOINT", "CMD"):
            image[word] = json.loads(rest)
        elif word == "HEALTHCHECK":
            image[word] = json.loads(rest.split("CMD", 1)[1])
        else:
            image[word] = rest
    return image


if __name__ == "__main__":
    really = "--really" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as root:
        environment = dict(os.environ)
        environment.pop("CARGO_TARGET_DIR", None)
        if not really:
            os.mkdir(f"{root}/bin")
            with open(f"{root}/bin/cargo", "w") as file:
                file.write(CARGO.format(cargo=shutil.which("cargo")))
            os.chmod(f"{root}/bin/cargo", 0o755)
            environment["PATH"] = f"{root}/bin:" + environment["PATH"]
        image = follow(root, environment)
        stage = image.pop("stage")
        image["files"] = [os.path.join(at, name)[len(stage):] for at, _, names in os.walk(stage) for name in names]
        if really:
            program, *rest = image["ENTRYPOINT"]
            image["says"] = subprocess.run([stage + program, *rest, "--version"], capture_output=True, text=True, check=True).stdout
            image["libraries"] = subprocess.run(["ldd", stage + program], capture_output=True, text=True).stdout.split("\n")
        json.dump(image, sys.stdout, indent=1)
