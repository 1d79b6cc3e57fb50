"""The page that shows how a training goes: curves from its log, pictures of one held-out place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetkit.commands.train.comparison import Comparison
from unetkit.models.decision import Decision
from unetkit.storage.atomic import make_folder, write_bytes, write_text
from unetkit.training.loop import Callback
from unetkit.training.run_folder import PAGE, logged, logged_warnings
from unetkit.views.page import page, png_uri
from unetkit.views.pictures import small_picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from unetkit.commands.train.report import TrainingDescription
    from unetkit.commands.train.validation import ValidationPicture
    from unetkit.training.checkpoint import Validation
    from unetkit.training.loop import TrainingResult
    from unetkit.training.run_folder import RunFolder

PICTURES = "pictures"


class TrainingPage(Callback):
    """Writes the page anew at every validation.

    All that it shows is read from the log and from pictures on disk, so that a training that goes
    on after a stop shows what was before as well.
    """

    def __init__(
        self,
        run_folder: RunFolder,
        *,
        description: TrainingDescription,
        picture: Callable[[], ValidationPicture | None],
        normalizes: bool,
    ) -> None:
        self._path = run_folder.running_page
        self._pictures = Path(run_folder.folder, PICTURES)
        self._log = Path(run_folder.running_log)
        self._description = description
        self._picture = picture
        self._normalizes = normalizes

    def validated(self, step: int, found: Validation, *, better: bool) -> None:
        """Add a picture, and write the page."""
        picture = self._picture()
        if picture is not None:
            make_folder(str(self._pictures))
            for name, labels in (("image", None), ("truth", picture.truth)):
                self._save(name, small_picture(picture.image, labels))
            self._save(f"{step:08d}", small_picture(picture.image, picture.prediction))
        self._write(running=True)

    def ended(self, outcome: TrainingResult) -> None:
        """Write the page for the last time."""
        self._write(running=False)

    def _save(self, name: str, content: bytes) -> None:
        write_bytes(str(self._pictures / f"{name}.png"), content)

    def _write(self, *, running: bool) -> None:
        lines = list(logged(self._log.read_bytes()))
        write_text(self._path, page(self._contents(lines, running=running), template=PAGE))

    def _contents(self, lines: list[dict[str, Any]], *, running: bool) -> dict[str, Any]:
        plan, instances = self._description.plan, self._description.task.instances
        checks = [line for line in lines if line["event"] == "validation"]
        planned = [line["steps"] for line in lines if line["event"] == "planned"]
        total = planned[-1] if planned else plan.steps
        reached = max((line.get("step", 0) for line in lines), default=0)
        state = f"Step {reached} of {total}; this page is written anew at every validation."
        if not running:
            best = max((line["step"] for line in checks if line["best"]), default=0)
            state = (
                f"Finished after {reached} of {total} steps; the network of step {best} was kept."
            )
            if decision := self._decision(lines):
                state += f" {decision['sentence']}"
            if found := lines[-1].get("comparison"):
                state = " ".join([state, *Comparison.from_dict(found).sentences])
        rows = [
            ("model", plan.model),
            *sorted(plan.options.items()),
            ("recipe", plan.recipe),
            *sorted(plan.changed.items()),
            ("loss", plan.numbers.loss),
            ("target", self._description.task.target),
            ("seed", plan.seed),
            ("on", f"{plan.device}, {plan.precision}"),
        ]
        return {
            "title": f"Training on {' + '.join(self._description.datasets)}",
            "state": state,
            "running": running,
            "warnings": list(logged_warnings(lines)),
            "facts": [[name, str(value)] for name, value in rows],
            "held": "held out" if plan.numbers.loss == "unet" else "held out (cross-entropy alone)",
            "score": "mean average precision (AP)" if instances else "mean Dice",
            "frozen": self._frozen(total) if planned or plan.budget is None else None,
            "decision": self._decision(lines),
            "steps": [line for line in lines if line["event"] == "step"],
            "validations": checks,
            **self._shown(checks),
        }

    def _decision(self, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return the curve of the decision, once it is fitted."""
        found = lines[-1].get("decision") if lines and lines[-1]["event"] == "end" else None
        if not found:
            return None
        curve = found["curve"]
        told = {key: value for key, value in found.items() if key != "curve"}
        sentence = Decision.from_dict(told).sentence(self._description.task.score)
        return {"curve": curve, "threshold": found["threshold"], "sentence": sentence}

    def _frozen(self, total: int) -> int | None:
        """Return the first step, counted from 1, that leaves statistics of batches as they are."""
        if not self._normalizes:
            return None
        freezes = self._description.plan.numbers.freezes
        return next((step + 1 for step in range(total) if freezes(step, total)), None)

    def _shown(self, checks: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the pictures of the validations that the log knows."""

        def uri(name: str) -> str | None:
            path = self._pictures / f"{name}.png"
            return png_uri(path.read_bytes()) if path.exists() else None

        found = [(check, uri(f"{check['step']:08d}")) for check in checks]
        return {
            "image": uri("image"),
            "truth": uri("truth"),
            "pictures": [
                {"step": check["step"], "score": check["score"], "uri": data}
                for check, data in found
                if data is not None
            ],
        }
