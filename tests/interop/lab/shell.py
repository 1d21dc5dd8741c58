"""Running commands, and the few file helpers that every other module wants."""
import os
import subprocess


class Failed(Exception):
    """Something did not go as it should; the text is for the person who reads the report."""


def sh(*cmd, check=True, timeout=60, input=None, **kw):
    """Runs a command and returns what it printed (both streams). Without `check`, a failure is the caller's affair."""
    stdin = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
    try:
        proc = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              timeout=timeout, **stdin, **kw)
    except subprocess.TimeoutExpired as e:
        raise Failed(f"{' '.join(cmd)}: no end within {timeout} s") from e
    except FileNotFoundError as e:
        raise Failed(f"{cmd[0]}: not installed") from e
    if check and proc.returncode:
        raise Failed(f"{' '.join(cmd)}: exit {proc.returncode}: {proc.stdout.strip()}")
    return proc.stdout


def write(path, text, mode=0o644):
    """Writes a file, making its folder, and returns its path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", opener=lambda p, flags: os.open(p, flags, mode)) as f:
        f.write(text)
    return path


def read(path):
    with open(path, errors="replace") as f:
        return f.read()
