"""One marked function as a tool: its definition from signature and docstring, its arguments checked, its result as MCP has it.

Whatever a function does, the outcome is a result: what it returned, or a readable error without traceback, paths or
secrets (the traceback goes to the log). Knows nothing of threads, deadlines and callers.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin, get_type_hints

import structlog
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ArgsKwargs

from haltline.authoring import Context, Declaration, ToolError
from haltline.policy.paths import parse_path
from haltline.redact import Redactor
from haltline.upstreams.messages import BadMessage, read
from haltline.upstreams.python_loader import LoadFailed

__all__ = ["DESTINATION", "PythonTool", "error_result"]

log = structlog.get_logger(__name__)

DESTINATION = "io.haltline/destination"
"""In a tool's `_meta`: the argument that names whom it acts on."""
MAX_TEXT = 10_000
MAX_RAISED = 1_000
MAX_COMPLAINTS = 5
MAX_COMPLAINT = 200
_PATH = re.compile(r"(?<![\w/\\:.-])(?:[A-Za-z]:)?[/\\](?:[\w.@+~-]+[/\\])+")
"""The folders of an absolute path; what comes after the last of them stays."""
_PLAINER = {
    "missing": "is missing",
    "missing_keyword_only_argument": "is missing",
    "unexpected_keyword_argument": "there is no such argument",
}
_NOTHING_SAID: Any = inspect.Signature.empty


class _Schema(GenerateJsonSchema):
    """Without a title for each field that only repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False


class PythonTool:
    """Made once from a declaration; raises LoadFailed where its annotations cannot be put into a schema."""

    def __init__(self, declaration: Declaration, upstream: str, max_result_bytes: int) -> None:
        self.declaration = declaration
        self.name = declaration.name
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(declaration.function))
        self._upstream = upstream
        self._max_bytes = max_result_bytes
        self._redactor = Redactor()
        hints = self._hints()
        parameters = self._parameters(hints)
        self._contexts = tuple(name for name in parameters if _is_context(hints[name]))
        taken = {name: one for name, one in parameters.items() if name not in self._contexts}
        self._arguments, inputs = self._adapter(taken, hints)
        returned = hints.get("return", _NOTHING_SAID)
        self._answer, outputs = self._returned(Any if returned is _NOTHING_SAID else returned)
        self._structured = outputs is not None
        self.definition = self._definition(inputs, outputs)

    # the definition

    def _hints(self) -> dict[str, Any]:
        try:
            return get_type_hints(self.declaration.function, include_extras=True)
        except Exception as error:  # noqa: BLE001 - an annotation is code of the author's
            self._unusable(f"its annotations cannot be read: {error}", error)

    def _parameters(self, hints: Mapping[str, Any]) -> dict[str, inspect.Parameter]:
        parameters = dict(inspect.signature(self.declaration.function).parameters)
        for name, one in parameters.items():
            if one.kind not in {one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY}:
                self._unusable(f"parameter {name}: arguments come by name, so *, ** and / have no place; name each")
            if name not in hints:
                self._unusable(f"parameter {name} needs an annotation: agents are told its type")
        return parameters

    def _adapter(
        self, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]
    ) -> tuple[TypeAdapter[Any], dict[str, Any]]:
        try:
            return _checked(parameters, hints)
        except Exception as error:  # noqa: BLE001 - an annotation is code of the author's
            for name, one in parameters.items():
                try:
                    _checked({name: one}, hints)
                except Exception as its_own:  # noqa: BLE001 - the parameter that it is about
                    self._unusable(f"parameter {name}: {_first_line(its_own)}", its_own)
            self._unusable(_first_line(error), error)

    def _returned(self, annotation: Any) -> tuple[TypeAdapter[Any], dict[str, Any] | None]:
        """How a result is checked and written, and its schema where it is an object."""
        if annotation is bytes:
            self._unusable("it returns bytes; a tool returns text or what can be written as JSON")
        try:
            adapter = _writer(annotation)
            schema = adapter.json_schema(mode="serialization", schema_generator=_Schema)
        except Exception as error:  # noqa: BLE001 - an annotation is code of the author's
            self._unusable(f"what it returns: {_first_line(error)}", error)
        if "$ref" in schema:  # a model that holds itself
            schema = {**schema["$defs"][schema["$ref"].rpartition("/")[2]], "$defs": schema["$defs"]}
        return adapter, schema if schema.get("type") == "object" else None

    def _definition(self, inputs: dict[str, Any], outputs: dict[str, Any] | None) -> dict[str, Any]:
        said = self.declaration
        description = inspect.getdoc(inspect.unwrap(said.function))
        definition: dict[str, Any] = {"name": self.name}
        if description:
            definition["description"] = description
        definition["inputSchema"] = inputs
        if outputs is not None:
            definition["outputSchema"] = outputs
        if said.side_effects is not None:
            definition["annotations"] = {"readOnlyHint": not said.side_effects}
        if said.destination is not None:
            self._check_destination(said.destination, inputs)
            definition["_meta"] = {DESTINATION: said.destination}
        return definition

    def _check_destination(self, destination: str, inputs: Mapping[str, Any]) -> None:
        try:
            first = parse_path(destination)[0]
        except (ValueError, IndexError) as error:
            self._unusable(f"destination: {error}", error)
        if first not in inputs["properties"]:
            self._unusable(f"destination: {destination} begins with none of its arguments")

    def _unusable(self, why: str, cause: BaseException | None = None) -> NoReturn:
        said = self.declaration
        raise LoadFailed(f"{said.file}:{said.line}: {said.name}: {why}") from cause

    # a call

    def run(self, arguments: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Never raises."""
        try:
            return self._result(self.declaration.function(**self._values(arguments, context)))
        except BaseException as error:  # noqa: BLE001 - whatever the author's code raises is its answer
            return self._failure(error)

    async def run_async(self, arguments: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Raises CancelledError only."""
        try:
            return self._result(await self.declaration.function(**self._values(arguments, context)))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the author's code raises is its answer
            return self._failure(error)

    def _values(self, arguments: Mapping[str, Any], context: Context) -> dict[str, Any]:
        try:
            values: dict[str, Any] = self._arguments.validate_python(ArgsKwargs((), dict(arguments)))
        except ValidationError as error:
            raise ToolError(f"The arguments do not fit {self.name}: {_complaints(error)}") from None
        return {**values, **dict.fromkeys(self._contexts, context)}

    def _result(self, value: Any) -> dict[str, Any]:
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            raise ToolError(f"{self.name} returned something to await; its author must write it as async def")
        try:
            plain = self._answer.dump_python(self._answer.validate_python(value), mode="json", by_alias=True)
            data = _json(plain)
            if (2 * len(data) if self._structured else len(data)) > self._max_bytes:
                raise ToolError(f"The result of {self.name} is larger than the {self._max_bytes} bytes allowed")
            plain = read(data)
        except ValidationError as error:
            log.error("tool_result_unfit", upstream=self._upstream, tool=self.name, exc_info=error)
            raise ToolError(f"{self.name} returned what it does not declare: {_complaints(error)}") from None
        except (ValueError, TypeError, RecursionError) as error:
            log.error("tool_result_not_json", upstream=self._upstream, tool=self.name, exc_info=error)
            why = f": {error}" if isinstance(error, BadMessage) else ""
            raise ToolError(f"{self.name} returned what cannot be written as JSON{why}") from None
        if plain is None:
            return {"content": []}
        result: dict[str, Any] = {"content": [_text(plain if isinstance(plain, str) else data.decode())]}
        return {**result, "structuredContent": plain} if self._structured else result

    def _failure(self, error: BaseException) -> dict[str, Any]:
        if isinstance(error, ToolError):
            return error_result(_words(error) or f"{self.name} failed")
        log.error("tool_raised", upstream=self._upstream, tool=self.name, exc_info=error)
        words = _PATH.sub("…/", self._redactor.text(_words(error)[: 4 * MAX_RAISED]))[:MAX_RAISED]
        return error_result(f"{type(error).__name__}: {words}" if words else type(error).__name__)


def error_result(text: str) -> dict[str, Any]:
    return {"content": [_text(text[:MAX_TEXT])], "isError": True}


def _checked(
    parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]
) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """A check of arguments by name, and its schema: of a function that has these parameters and returns them."""

    def collect(**values: Any) -> dict[str, Any]:
        return values

    signature = inspect.Signature(
        [one.replace(kind=one.KEYWORD_ONLY, annotation=hints[name]) for name, one in parameters.items()]
    )
    described: Any = collect
    described.__signature__ = signature
    described.__annotations__ = {name: hints[name] for name in parameters}
    adapter: TypeAdapter[Any] = TypeAdapter(described)
    return adapter, adapter.json_schema(schema_generator=_Schema)


def _writer(annotation: Any) -> TypeAdapter[Any]:
    """Leaves a NaN one, which JSON has not, rather than making it null."""
    try:
        return TypeAdapter(annotation, config=ConfigDict(ser_json_inf_nan="constants"))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)  # a model, which has a configuration of its own


def _is_context(hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        return _is_context(get_args(hint)[0])
    if get_origin(hint) in {Union, UnionType}:
        return all(one is NoneType or _is_context(one) for one in get_args(hint))
    return inspect.isclass(hint) and issubclass(hint, Context)


def _complaints(error: ValidationError) -> str:
    """What is wrong and where, without the values."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    said = [
        f"{'.'.join(str(step) for step in one['loc'])}: {_PLAINER.get(one['type'], one['msg'])}"[:MAX_COMPLAINT]
        for one in found
    ]
    more = [f"and {len(said) - MAX_COMPLAINTS} more"] if len(said) > MAX_COMPLAINTS else []
    return "; ".join([*(text.removeprefix(": ") for text in said[:MAX_COMPLAINTS]), *more])


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text.encode("utf-8", "replace").decode("utf-8")}


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - `__str__` is code of the author's too
        return ""


def _first_line(error: BaseException) -> str:
    return _words(error).strip().split("\n", 1)[0][:MAX_RAISED]
