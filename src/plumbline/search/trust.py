"""The signature of a study: whether its study.yaml and its code/ are as this user left them.

Going on with a study runs the code in its folder. A study is signed with a secret key of this user when it is made or
gone on with; one that was made by another user, or edited by one, needs a word of consent. The signature covers
contents and names, not the folder's place, so a study can be moved and copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import platform
import secrets
import stat
from pathlib import Path

from plumbline.contract import ConfigError
from plumbline.output import printable

FILE = "trust.json"
KEY = "study.key"
SIGNED = "study.yaml"  # and every file in code/
CODE = "code"
SIZE = 32  # bytes of a key
READ, NEW = os.O_RDONLY | os.O_NOFOLLOW, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def key_path() -> Path:
    """The file of this user's key; raises OSError where there is no home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise OSError(str(error)) from error
    return base / "plumbline" / KEY


def read_key() -> bytes:
    """This user's key, made at its first use. Raises OSError where none can be stored, or where it is not private."""
    path = key_path()
    with contextlib.suppress(FileNotFoundError):
        return private_content(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{KEY}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, NEW, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SIZE))
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(draft, path)  # whole at once, never over another file
    finally:
        draft.unlink(missing_ok=True)
    return private_content(path)


def private_content(path: Path) -> bytes:
    """The bytes of a key that nobody but this user can read. Raises OSError."""
    if path.is_symlink():
        raise OSError(f"{path} is a link; remove it")
    with open(os.open(path, READ | os.O_NONBLOCK), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise OSError(f"{path} is not a private file of yours; remove it")
        content = file.read(SIZE + 1)
    if len(content) != SIZE:
        raise OSError(f"{path} is not a key; remove it")
    return content


def signature(folder: Path, key: bytes) -> str:
    """HMAC-SHA256 over study.yaml and all of code/: names, contents, and where links lead."""
    code = hmac.new(key, b"plumbline study 1\n", hashlib.sha256)
    for path in (folder / SIGNED, *entries(folder / CODE)):
        name = os.fsencode(path.relative_to(folder))
        kind, content = entry(path)
        code.update(kind + len(name).to_bytes(8, "big") + name + hashlib.sha256(content).digest())
    return code.hexdigest()


def entries(folder: Path) -> list[Path]:
    """All that lies in a folder, sorted, following no link."""
    if folder.is_symlink():
        return [folder]
    found = [
        Path(place) / name for place, folders, files in os.walk(folder, onerror=_raise) for name in (*folders, *files)
    ]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def entry(path: Path) -> tuple[bytes, bytes]:
    """(a letter for what it is, what is signed of it) for a file, a link, or anything else."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return b"l", os.fsencode(os.readlink(path))
    if stat.S_ISREG(mode):
        return b"f", path.read_bytes()
    return (b"d" if stat.S_ISDIR(mode) else b"o"), b""


def sign(folder: Path) -> bool:
    """Sign a study; whether that could be done. What cannot be signed needs the word each time."""
    from plumbline.files import write_json

    try:
        key = read_key()
        facts = {"signature": signature(folder, key), "key": name_of(key), "user": user(os.getuid())}
        write_json(folder / FILE, facts | {"host": platform.node()})
    except OSError:
        return False
    return True


def is_signed(folder: Path) -> bool:
    """Whether the study is as this user signed it."""
    try:
        return hmac.compare_digest(str(note(folder).get("signature", "")), signature(folder, read_key()))
    except (OSError, TypeError):  # TypeError: letters beyond ASCII
        return False


def check(folder: Path, word: str, trusted: bool) -> None:
    """Raise ConfigError unless the study is signed or `trusted`, which signs it. word: what gives the consent."""
    if is_signed(folder):
        return
    if trusted:
        sign(folder)
        return
    try:
        key: bytes | None = read_key()
        rest = ""
    except OSError as error:
        key, rest = None, f"; no key can be kept ({error}), so the word is needed each time"
    raise ConfigError(
        f"study={folder.name}: {origin(folder, key)}; going on with it runs the code in {folder / CODE}: "
        f"if you trust it, say {word}{rest or ' once'}"
    )


def consent(folder: Path) -> list[str]:
    """The words with which a starter that has checked the study begins its workers."""
    return [] if is_signed(folder) else ["trust=true"]


def origin(folder: Path, key: bytes | None) -> str:
    """Who signed the study, and whose its folder is."""
    facts = note(folder)
    owner = f"its folder belongs to {user(folder.stat().st_uid)}"
    if "signature" not in facts:
        return f"has no signature; {owner}"
    who = f"{printable(facts.get('user'))[:60]} on {printable(facts.get('host'))[:60]}"
    if key is not None and facts.get("key") == name_of(key):
        return f"was changed since it was signed by {who}; {owner}"
    return f"was signed with another key, by {who}; {owner}"


def note(folder: Path) -> dict[str, object]:
    """trust.json; empty where there is none that can be read."""
    try:
        with open(os.open(folder / FILE, READ | os.O_NONBLOCK), "rb") as file:
            facts = json.loads(file.read(10_000))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def name_of(key: bytes) -> str:
    return hashlib.sha256(b"name of " + key).hexdigest()[:16]


def user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
