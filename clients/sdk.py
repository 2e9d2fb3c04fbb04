"""`make sdk`: write the generated parts of both clients from the service's OpenAPI document.

Nothing of it is committed but `operations.txt`: a line for each operation and type, so that a review sees
what a change of the API does to its clients.
"""

import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # the service of this checkout, whatever is installed

import javascript  # noqa: E402
import msgspec  # noqa: E402

from service import __version__  # noqa: E402
from service.app import routed  # noqa: E402
from service.errors import all_problems  # noqa: E402
from service.openapi import complete_document  # noqa: E402

Object = dict[str, Any]

PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", None: "Any"}
"""JSON types of the values that a mapping may hold to be a plain `dict` in Python."""
REMEDIES = {problem.code: problem.remedy for problem in all_problems()}


def openapi_document() -> Object:
    """The document as `/openapi.json` gives it."""
    app = routed()
    document = complete_document(app.openapi_schema.to_schema(), app)
    return msgspec.json.decode(msgspec.json.encode(document))


def operations(document: Object) -> list[tuple[str, str, Object]]:
    """Method, path and operation of each route, in the order of the paths."""
    return [
        (method.upper(), path, operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in sorted(methods.items())
        if "operationId" in operation
    ]


def digest(document: Object) -> str:
    """One line for each operation and for each of its types: what clients see of the API."""
    lines = [
        f"{method} {path}  {operation['operationId']}({_taken(operation)}) -> {_given(operation)}"
        for method, path, operation in operations(document)
    ]
    schemas = document["components"]["schemas"]
    for name in sorted(schemas):
        required = set(schemas[name].get("required", ()))
        fields = (f"{each}{'' if each in required else '?'}" for each in schemas[name].get("properties", {}))
        lines.append(f"{name}: {', '.join(fields)}")
    return "\n".join(lines) + "\n"


def _taken(operation: Object) -> str:
    named = [
        each["name"] + ("" if each["required"] else "?")
        for each in operation.get("parameters", ())
        if each["in"] != "header"
    ]
    bodies = [_kind(media) for media in operation.get("requestBody", {}).get("content", {}).values()]
    return ", ".join([*named, *(f"body: {body}" for body in dict.fromkeys(bodies))])


def _given(operation: Object) -> str:
    kinds = {
        status: [_kind(media) for media in answer.get("content", {}).values()] or ["nothing"]
        for status, answer in sorted(operation["responses"].items())
        if status < "300"
    }
    return ", ".join(f"{status} {'|'.join(dict.fromkeys(each))}" for status, each in kinds.items())


def _kind(media: Object) -> str:
    schema = media["schema"]
    return schema["$ref"].rsplit("/", 1)[-1] if "$ref" in schema else str(schema.get("type", "any"))


def for_python(document: Object) -> tuple[Object, list[tuple[str, str, str]]]:
    """The document as the generator is given it, and the fields whose types it is not told.

    A mapping becomes a class there, in which nobody would look for items. So it is told nothing, and the
    field's annotation is written afterwards: class, field, type.
    """
    document = json.loads(json.dumps(document))
    del document["paths"]["/api/v1/imports/{target}"]["post"][
        "requestBody"
    ]  # `import_file` is written by hand
    for _, _, operation in operations(document):
        for answer in operation["responses"].values():
            for media in answer.get("content", {}).values():
                if _plain_type(media["schema"]):
                    media["schema"] = {}
    plain: list[tuple[str, str, str]] = []
    for name, schema in document["components"]["schemas"].items():
        for field, kind in schema.get("properties", {}).items():
            if written := _plain_type(kind):
                plain.append((name, field, written))
                schema["properties"][field] = {}
    return document, plain


def _plain_type(schema: Object) -> str | None:
    members = schema.get("oneOf", ())
    if members and list(members[1:]) == [{"type": "null"}]:
        inner = _plain_type(members[0])
        return f"{inner} | None" if inner else None
    if schema.get("type") == "array":
        inner = _plain_type(schema.get("items", {}))
        return f"list[{inner}]" if inner else None
    if schema.get("type") != "object" or schema.get("properties"):
        return None
    values = schema.get("additionalProperties", {})
    if values is True or not isinstance(values, dict):
        values = {}
    if not values.keys() <= {"type"} or values.get("type") not in PLAIN:
        return None
    return f"dict[str, {PLAIN[values.get('type')]}]"


def write_python(document: Object, target: Path) -> None:
    """Write the package's `_generated`. A warning of the generator ends it."""
    pruned, plain = for_python(document)
    package = target / "tally_client" / "_generated"
    with tempfile.TemporaryDirectory() as folder:
        source, config, made = (Path(folder) / name for name in ("openapi.json", "config.json", "made"))
        source.write_text(json.dumps(pruned))
        config.write_text(json.dumps({"literal_enums": True, "post_hooks": []}))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
                *(
                    "--path",
                    str(source),
                    "--config",
                    str(config),
                    "--output-path",
                    str(made),
                    "--meta",
                    "none",
                ),
                *("--custom-template-path", str(HERE / "python" / "templates")),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"the OpenAPI document cannot become a client:\n{done.stdout}{done.stderr}")
        for name, field, written in plain:
            _annotate(made / "models" / f"{_snake(name)}.py", field, written)
        (made / "remedies.py").write_text(
            '"""How each problem is mended, by its code."""\n\n'
            f"REMEDIES: dict[str, str] = {json.dumps(REMEDIES, indent=4, ensure_ascii=False)}\n"
        )
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(made, package, ignore=shutil.ignore_patterns("__pycache__", "*_cache"))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _annotate(module: Path, field: str, written: str) -> None:
    text, count = re.subn(
        rf"^(    {field}: )Any\b", rf"\g<1>{written}", module.read_text(), flags=re.MULTILINE
    )
    if count != 1:
        raise SystemExit(f"{module.name} has no field {field}: is it named otherwise in Python?")
    module.write_text(text)


def write_packages(target: Path, into: Path) -> None:
    """A wheel, and an archive that npm installs."""
    into.mkdir(parents=True, exist_ok=True)
    for old in [*into.glob("*.whl"), *into.glob("*.tgz")]:
        old.unlink()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(into.resolve())]
    subprocess.run(build, cwd=target / "python", check=True, stdout=subprocess.DEVNULL)
    write_archive(target, into)


def write_archive(target: Path, into: Path) -> None:
    """What npm installs: the files that `package.json` names, with the version of this Tally."""
    package = json.loads((target / "js" / "package.json").read_text()) | {"version": __version__}
    contents = {"package.json": json.dumps(package, indent=2).encode()}
    for name in package["files"]:
        here = target / "js" / name
        for path in sorted(here.rglob("*")) if here.is_dir() else [here]:
            if path.is_file():
                contents[str(path.relative_to(target / "js"))] = path.read_bytes()
    with (
        (into / f"{package['name']}-{__version__}.tgz").open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"package/{name}")  # of nobody, and from 1970: the same in each run
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def main(target: Path = HERE) -> None:
    document = openapi_document()
    write_python(document, target / "python")
    javascript.write(operations(document), document["components"]["schemas"], REMEDIES, target / "js")
    (target / "operations.txt").write_text(digest(document))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
    if sys.argv[2:]:
        write_packages(Path(sys.argv[1]), Path(sys.argv[2]))
