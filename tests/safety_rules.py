"""What code of the package may not do, found in its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
"""Reading what these wrote may run any code."""
OLD = {"torch", "gym", "d4rl", "mujoco_py"}
"""What the package replaces."""
NETWORK = {
    *("urllib", "http", "requests", "httpx", "aiohttp", "urllib3", "ftplib", "smtplib", "telnetlib"),
    *("xmlrpc", "socketserver", "webbrowser", "huggingface_hub", "gdown", "fsspec"),
}
SHELLS = {"pty", "commands", "pexpect", "code", "codeop"}
MODULES = PICKLES | OLD | NETWORK | SHELLS

_SERIALISED = "jax.experimental.serialize_executable"
NAMES = {
    *("eval", "exec", "compile", "__import__", "breakpoint"),
    *(f"yaml.{name}" for name in ("load", "load_all", "full_load", "full_load_all", "unsafe_load",
                                  "unsafe_load_all", "Loader", "FullLoader", "UnsafeLoader")),
    *("os.system", "os.popen", "os.startfile", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *(f"os.{kind}{end}" for kind in ("exec", "spawn")
      for end in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
    *("asyncio.create_subprocess_shell", "asyncio.open_connection"),
    *("tempfile.mktemp", "shutil.unpack_archive"),
    *(_SERIALISED, f"{_SERIALISED}.deserialize_and_load"),
}  # fmt: skip
"""May not even be mentioned: a function given another name is the same function."""
METHODS = {"read_pickle", "to_pickle", "extractall"}
CHILDREN = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}
SOCKETS = {"socket.socketpair"}
"""All of `socket` that is allowed: two ends in one process."""


def unsafe(module: ast.Module) -> list[str]:
    """`line: what` for everything that is forbidden, whatever it is imported as."""
    names = _imported_as(module)
    found = [f"{line}: import of {name}" for name, line in imports(module) if name.split(".")[0] in MODULES]
    for node in ast.walk(module):
        what = ""
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            what = _mentioned(_dotted(node, names), node)
        elif isinstance(node, ast.ImportFrom):
            told = [f"{node.module}.{alias.name}" for alias in node.names if not node.level]
            what = next((name for name in told if _mentioned(name, node)), "")
        elif isinstance(node, ast.Call):
            what = _called(_dotted(node.func, names), node)
        if what:
            found.append(f"{node.lineno}: {what}")
    return found


def imports(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Modules that are imported, by statement or by a constant name, with the line."""
    names = _imported_as(module)
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module, node.lineno
        elif isinstance(node, ast.Call) and _dotted(node.func, names) == "importlib.import_module":
            named = [word for word in node.args[:1] if isinstance(word, ast.Constant)]
            yield from ((str(word.value), node.lineno) for word in named)


def _imported_as(module: ast.Module) -> dict[str, str]:
    names = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`np.load` as `numpy.load`; "" for what is no dotted name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _mentioned(name: str, node: ast.AST) -> str:
    if isinstance(node, ast.Attribute) and node.attr in METHODS:
        return f".{node.attr}"
    plain = name.removeprefix("builtins.")
    if plain in NAMES:
        return plain
    return name if name.startswith("socket.") and name not in SOCKETS else ""


def _called(name: str, call: ast.Call) -> str:
    """What is wrong with the arguments of a call."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "allow_pickle" in given and not _is(given["allow_pickle"], False):
        return "allow_pickle"
    if name in {"numpy.load", "jax.numpy.load"} and (len(call.args) > 2 or None in given):
        return "numpy.load with arguments that nobody sees"
    if name == "importlib.import_module" and not call.args:
        return "import of something that nobody sees"
    if name not in CHILDREN:
        return ""
    if not _is(given.get("shell", ast.Constant(False)), False) or None in given or len(call.args) > 1:
        return f"{name} with a shell"
    command = call.args[0] if call.args else given.get("args")
    return "" if isinstance(command, ast.List) else f"{name} of something else than a list of words"


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
