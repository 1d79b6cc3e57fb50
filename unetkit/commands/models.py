"""Say which models there are, what one is, and whether it keeps what it promises."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from unetkit.errors import UsageError
from unetkit.options import complete, options_of, parse_texts
from unetkit.progress import SILENT
from unetkit.registry import Registry, status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unetkit.models.conformance import Finding
    from unetkit.models.model_header import ModelHeader
    from unetkit.options import ModelOptions, Opt
    from unetkit.progress import Progress
    from unetkit.registry import Entry

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class CheckReport:
    """What `check_model` found."""

    model: str
    options: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether the model keeps every rule."""
        return all(finding.holds for finding in self.findings)

    @property
    def broken(self) -> tuple[str, ...]:
        """The checks that the model fails."""
        return tuple(finding.check for finding in self.findings if not finding.holds)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {
            "model": self.model,
            "holds": self.holds,
            "options": self.options,
            "findings": [asdict(finding) for finding in self.findings],
        }


def list_models() -> list[dict[str, Any]]:
    """List the installed models, without importing one.

    Returns
    -------
    list of dict
        For each its `name`, `distribution`, `version` and `status`: ``installed``, or why it can't
        be used.
    """
    return [
        {
            "name": name,
            "distribution": entry.distribution,
            "version": entry.version,
            "status": status(entry),
        }
        for name, entry in Registry("unetkit.models", noun="model").entries()
    ]


def show_model(
    source: Annotated[str, Opt(metavar="NAME|FILE")],
    *,
    options: ModelOptions = (),
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Say which sizes a model takes, what its options mean and how many parameters it has.

    Parameters
    ----------
    source : str
        An installed model, or a .safetensors file.
    options : sequence of str
        An option of the model, such as ``width=16``, not for a file; may be repeated.
    progress : Progress
        Told if the model takes long to import.

    Returns
    -------
    dict
        What JSON can hold.

    Raises
    ------
    UsageError
        If the name or an option is unknown.
    InputError
        If the file is missing or damaged.
    ResourceError
        If the distribution that offers the model is absent or broken.
    """
    # What lists models does without torch.
    from unetkit.models.build import models
    from unetkit.models.model_file import installed_name, rebuild_options
    from unetkit.models.model_header import read_header

    if source.endswith(SUFFIX):
        _refuse(options, source)
        header = read_header(source)
        entry = models().entry(installed_name(header, path=source))
        build = models().get(entry.full_name, progress=progress)
        chosen = complete(rebuild_options(header, path=source), build, model=header.model)
        return _described(entry, header=header, options=chosen)
    registry = models()
    entry = registry.entry(source)
    build = registry.get(source, progress=progress)
    chosen = complete(parse_texts(options, build, model=source), build, model=source)
    return _described(entry, header=None, options=chosen)


def check_model(
    source: Annotated[str, Opt(metavar="NAME|FILE")],
    *,
    options: ModelOptions = (),
    progress: Progress = SILENT,
) -> CheckReport:
    """Hold a model to everything that unetkit relies on, with real passes.

    Parameters
    ----------
    source : str
        An installed model, or a .safetensors file.
    options : sequence of str
        An option of the model, such as ``width=16``, not for a file; may be repeated. Small ones
        make the check quick.
    progress : Progress
        Told after each check.

    Returns
    -------
    CheckReport

    Raises
    ------
    UsageError
        If the name or an option is unknown.
    InputError
        If the file is missing or damaged.
    ResourceError
        If the distribution that offers the model is absent or broken.
    """
    from unetkit.models.build import build_model, models
    from unetkit.models.conformance import CHECKS, findings
    from unetkit.models.model_file import load

    if source.endswith(SUFFIX):
        _refuse(options, source)
        loaded = load(source)
        name, chosen = loaded.header.full_name, loaded.header.options
        trained = (loaded.header.in_channels, len(loaded.header.class_names), loaded.module)
    else:
        name = source
        build = models().get(name, progress=progress)
        chosen = complete(parse_texts(options, build, model=name), build, model=name)
        trained = (1, 2, build_model(name, in_channels=1, classes=2, options=chosen))
    in_channels, classes, module = trained
    progress.start("check", total=len(CHECKS))
    found = []
    for finding in findings(
        models().get(name),
        in_channels=in_channels,
        classes=classes,
        options=chosen,
        module=module,
    ):
        found.append(finding)
        progress.advance(status=finding.check)
    return CheckReport(source, dict(chosen), tuple(found))


def _refuse(options: Sequence[str], source: str) -> None:
    if options:
        raise UsageError(
            f"options must be set for an installed model, got {options[0]!r} for the file"
            f" {source!r}, which has its own; leave --set out"
        )


def _described(
    entry: Entry, *, header: ModelHeader | None, options: dict[str, Any]
) -> dict[str, Any]:
    from unetkit.models.build import build_model, build_shapes, models

    given = {"in_channels": 1, "classes": 2}
    if header is not None:
        given = {"in_channels": header.in_channels, "classes": len(header.class_names)}
    name = entry.full_name
    module = build_shapes(name, options=options, **given) or build_model(
        name, options=options, **given
    )
    contract: Any = module.contract
    known = options_of(models().get(name))
    return {
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        **given,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "contract": {**contract.to_dict(), "need": contract.need},
        "options": [
            {"name": key, "value": value, "takes": known[key].rule, "meaning": known[key].meaning}
            for key, value in options.items()
        ],
    }
