"""Runs a command confined as a systemd unit would confine it: without capabilities and new privileges, with the unit's filters of system
calls and address families, and without memory that is both writable and executable.

    confined.py UNIT COMMAND…

A system call that the filters do not allow ends the process (SIGSYS), so that the test notices it. Under systemd it would return an error.
"""
import ctypes, os, subprocess, sys

ALLOW, KILL = 0x7FFF0000, 0x80000000
ERROR = 0x00050000
EAFNOSUPPORT = 97
NOT_EQUAL, MASKED_EQUAL = 1, 7
PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 38, 24
WRITE, EXECUTE = 2, 4
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}

seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
seccomp.seccomp_init.restype = ctypes.c_void_p
libc = ctypes.CDLL(None, use_errno=True)


class Compare(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operation", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def settings(unit, name):
    """Returns the words of each line that sets the key."""
    with open(unit) as f:
        return [line.split("=", 1)[1].split() for line in map(str.strip, f) if line.startswith(name + "=")]


def calls(name):
    """Returns the system calls of a group, or the name itself if it is no group."""
    if not name.startswith("@"):
        return {name}
    lines = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout.splitlines()
    members = [line.strip() for line in lines[1:] if line.strip() and not line.strip().startswith("#")]
    return set().union(*map(calls, members))


def allowed(unit):
    found = set()
    for words in settings(unit, "SystemCallFilter"):
        if words[0].startswith("~"):
            found -= set().union(*(calls(word.lstrip("~")) for word in words))
        else:
            found |= set().union(*map(calls, words))
    return found


def rule(context, action, call, *compares):
    number = seccomp.seccomp_syscall_resolve_name(call.encode())
    if number < 0:
        return  # another architecture's
    array = (Compare * max(len(compares), 1))(*compares)
    failed = seccomp.seccomp_rule_add_array(ctypes.c_void_p(context), ctypes.c_uint32(action), number, len(compares), array)
    if failed:
        sys.exit(f"no rule for {call}: {os.strerror(-failed)}")


def confine(unit):
    context = seccomp.seccomp_init(ctypes.c_uint32(KILL))
    families = [FAMILIES[name] for words in settings(unit, "RestrictAddressFamilies") for name in words]
    for call in allowed(unit) - {"socket", "mmap", "mprotect"}:
        rule(context, ALLOW, call)
    for family in families:
        rule(context, ALLOW, "socket", Compare(0, 4, family, 0))
    for family in range(max(families) + 32):
        if family not in families:
            rule(context, ERROR | EAFNOSUPPORT, "socket", Compare(0, 4, family, 0))
    both = WRITE | EXECUTE
    for protection in (0, WRITE, EXECUTE):
        rule(context, ALLOW, "mmap", Compare(2, MASKED_EQUAL, both, protection))
    rule(context, ALLOW, "mprotect", Compare(2, MASKED_EQUAL, EXECUTE, 0))
    # Programs that root starts have no capabilities then, either.
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    failed = seccomp.seccomp_load(ctypes.c_void_p(context))
    if failed:
        sys.exit(f"no filter: {os.strerror(-failed)}")


if __name__ == "__main__":
    unit, *command = sys.argv[1:]
    if not settings(unit, "SystemCallFilter"):
        sys.exit(f"{unit} has no filter")
    confine(unit)
    os.execv(command[0], command)
