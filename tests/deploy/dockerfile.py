"""Executes a Dockerfile's COPY and RUN steps without Docker, in a directory, with the files that .dockerignore admits. Prints the resulting
image's settings as JSON.

    dockerfile.py [--architecture amd64|arm64] [--really]

The image's architecture is by default the machine's. A script stands in for Cargo: it checks the manifest and the lock file, and creates a
program that contains its target and its linker. Other scripts stand in for the programs that install what another architecture needs. With
--really, Cargo builds, which takes minutes, and the image's program is run. The check names the platform, because Cargo would otherwise need
the crates of Windows and others, too, which a build on this machine does not download.
"""
import argparse, fnmatch, json, os, re, shutil, subprocess, sys, tempfile

CARGO = """#!/bin/sh
set -e
"{cargo}" metadata --offline --locked --filter-platform host-tuple --format-version 1 >/dev/null
test -f src/main.rs && test -f src/lib.rs
while [ "$1" != --target ]; do shift; done
folder=target/$2/release
mkdir -p "$folder/.fingerprint/pontoon-0"
echo "$2" $(env | sed -n 's/^CARGO_TARGET_[A-Z0-9_]*_LINKER=//p') >"$folder/pontoon"
"""
# Notes what would be installed.
INSTALLER = """#!/bin/sh
echo "$(basename "$0") $*" >>"{notes}"
"""
INSTALLERS = "rustup", "apt-get", "sudo"


def instructions(path):
    with open(path) as file:
        lines = [line for line in file.read().splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            yield line.split(None, 1)


def admitted(source):
    """Returns whether the build context has this path: the last pattern that matches it or a folder above it decides."""
    with open(".dockerignore") as file:
        patterns = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    words = source.split("/")
    paths = ["/".join(words[:end]) for end in range(1, len(words) + 1)]
    result = os.path.exists(source)
    for pattern in patterns:
        if any(fnmatch.fnmatch(path, pattern.lstrip("!")) for path in paths):
            result = pattern.startswith("!")
    return result


def copy(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def follow(root, environment):
    stages, image = {}, {}
    for word, rest in instructions("Dockerfile"):
        if word == "FROM":
            words = rest.split()
            name = words[-1]
            image = {"stage": os.path.join(root, re.sub(r"\W", "_", name)), "from": [word for word in words if not word.startswith("--")][0]}
            image["platform"] = next((word[len("--platform="):] for word in words if word.startswith("--platform=")), None)
            stages[name] = image
        elif word == "WORKDIR":
            image["directory"] = rest
            os.makedirs(image["stage"] + rest)
        elif word == "COPY":
            options = dict(one[2:].split("=") for one in rest.split() if one.startswith("--"))
            origin = stages[options["from"]]["stage"] if "from" in options else None
            *sources, target = (one for one in rest.split() if not one.startswith("--"))
            if "chown" in options:
                image.setdefault("owners", {})[target] = options["chown"]
            target = os.path.join(image.get("directory", "/"), target)
            for source in sources:
                if origin is None and not admitted(source):
                    sys.exit(f"COPY {source}: .dockerignore excludes it")
                end = target if not target.endswith("/") else target + os.path.basename(source)
                copy(origin + source if origin else source, image["stage"] + os.path.normpath(end))
        elif word == "RUN":
            subprocess.run(["sh", "-ec", rest], cwd=image["stage"] + image["directory"], env=environment, check=True, stdout=sys.stderr)
        elif word in ("ENTRYPOINT", "CMD", "VOLUME"):
            image[word] = json.loads(rest)
        elif word == "HEALTHCHECK":
            image[word] = json.loads(rest.split("CMD", 1)[1])
        else:
            image[word] = rest
    return stages


def machine():
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--architecture", choices=["amd64", "arm64"], default=machine())
    parser.add_argument("--really", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        environment = dict(os.environ, TARGETARCH=arguments.architecture)
        environment.pop("CARGO_TARGET_DIR", None)
        notes = f"{root}/installed"
        if not arguments.really:
            os.mkdir(f"{root}/bin")
            scripts = {name: INSTALLER.format(notes=notes) for name in INSTALLERS}
            for name, text in {"cargo": CARGO.format(cargo=shutil.which("cargo")), **scripts}.items():
                with open(f"{root}/bin/{name}", "w") as file:
                    file.write(text)
                os.chmod(f"{root}/bin/{name}", 0o755)
            environment["PATH"] = f"{root}/bin:" + environment["PATH"]
        stages = follow(root, environment)
        image = stages[list(stages)[-1]]
        image["builder"] = {key: stages["build"][key] for key in ("from", "platform")}
        stage = image.pop("stage")
        image["files"] = [os.path.join(at, name)[len(stage):] for at, _, names in os.walk(stage) for name in names]
        if arguments.really:
            program, *rest = image["ENTRYPOINT"]
            image["says"] = subprocess.run([stage + program, *rest, "--version"], capture_output=True, text=True, check=True).stdout
            image["libraries"] = subprocess.run(["ldd", stage + program], capture_output=True, text=True).stdout.split("\n")
        else:
            image["installed"] = open(notes).read().splitlines() if os.path.exists(notes) else []
            image["program"] = open(stage + image["ENTRYPOINT"][0]).read().split()
        json.dump(image, sys.stdout, indent=1)
