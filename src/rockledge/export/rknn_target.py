"""`--to rknn`: operators for the vendor's runtime, built by the vendor's toolkit in a process of its own.

Single linears, or whole decoder layers over the first positions of a text. The embedding, and what joins
linears, are the host's. Every operator is run by the toolkit's simulator on what those before it gave, so the
stated cost is that of all roundings together. The simulator computes with floats: it checks what is computed,
not the chip.
"""

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rockledge.artifact.publish import write_file, writing
from rockledge.export.float_file import FloatFile
from rockledge.export.measure import KEPT, cost_lines, sample
from rockledge.export.plain import PlainModel
from rockledge.export.request import ExportRequest, Target, Written
from rockledge.export.rknn_jobs import ROWS, Job, block_job, linear_job, write_job
from rockledge.export.rknn_toolkit import Toolkit, ToolkitError, find_toolkit

Float32 = npt.NDArray[np.float32]

SAMPLES: Final = 4
"""Texts that an operator is calibrated and simulated with, at most."""

MANIFEST, HOST, CHECK = "rknn.json", "host.safetensors", "check.npz"
_OURS: Final = "w8a8"  # the type whose weights can be given as codes and scales


def write_rknn(model: PlainModel, folder: Path, out: Path, request: ExportRequest) -> Written:
    """Fills `folder`. UsageError without a toolkit; ToolkitError where it refuses a linear."""
    python = find_toolkit(request.toolkit)
    plain = PlainModel(model.artifact, untied=True)
    rows = min(ROWS, plain.config.context)
    count = min(max(request.tokens, rows), SAMPLES * rows)
    tokens, rows = sample(plain, count, rows)
    with tempfile.TemporaryDirectory(prefix=".toolkit-", dir=folder) as work, ExitStack() as stack:
        builder = Builder(python, Path(work), folder, out, plain, request, stack)
        from rockledge.export.rknn_chain import run_chain

        windows = [tokens[first : first + rows] for first in range(0, len(tokens), rows)]
        noting = replace(request, note=builder.notes.append)
        expected, found = run_chain(plain, windows, builder.build, noting)
    cost = None
    if request.tokens:
        cost = {f"{request.kind}, simulated": _divergence(plain, windows, expected, found)}
    with writing(out):
        for name, data in plain.files().items():
            write_file(folder / name, data)
        manifest = {
            "rows": rows,
            "hidden": plain.config.hidden,
            "type": request.kind,
            "embedding_scale": plain.config.embedding_scale,
            "norm_eps": plain.config.norm_eps,
            "operators": builder.operators,
        }
        write_file(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    ends = {"embed": plain.shape("embed"), "final_norm": plain.shape("final_norm")}
    with FloatFile(folder / HOST, ends.items(), "f16", out) as file:
        for name in ends:
            file.write_rows(name, plain.tensor(name))
    cosines = [one["cosine"] for one in builder.operators if one["cosine"] is not None]
    lines = [f"{len(builder.operators)} operators of {rows} tokens"]
    if cosines:
        lines.append(f"cosine of the simulated outputs: {min(cosines):.5f} at least")
    report = {"type": request.kind, "rows": rows, "cost": cost, "operators": builder.operators}
    return Written(report, (*lines, *(cost_lines(cost) if cost else ())), tuple(builder.notes))


def _divergence(
    plain: PlainModel, windows: Sequence[Sequence[int]], expected: Sequence[Float32], found: Sequence[Float32]
) -> dict[str, float]:
    """KL of the simulated logits from the float ones (or the distance of embeddings)."""
    from rockledge.eval.divergence import divergences
    from rockledge.eval.embeddings import embedding_distances

    reference, other = (dict(zip(map(tuple, windows), side, strict=True)) for side in (expected, found))
    tokens, window = [token for one in windows for token in one], len(windows[0])

    def of(side: dict[tuple[int, ...], Float32]) -> Any:
        return lambda asked: side[tuple(asked)]

    if plain.config.headless:
        report: Any = embedding_distances(of(reference), of(other), tokens, window=window)
    else:
        report = divergences(of(reference), {"simulated": of(other)}, tokens, window=window)["simulated"]
    return {key: value for key, value in asdict(report).items() if key in KEPT}


class Builder:
    """Builds operators one after another; a toolkit that died or hung is started anew."""

    def __init__(
        self,
        python: str,
        work: Path,
        folder: Path,
        out: Path,
        plain: PlainModel,
        request: ExportRequest,
        stack: ExitStack,
    ) -> None:
        self._python, self._work, self._folder, self._out = python, work, folder, out
        self._plain, self._request, self._stack = plain, request, stack
        self._toolkit: Toolkit | None = None
        self.operators: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def build(
        self,
        name: str,
        samples: Float32,
        inputs: Float32,
        expected: Float32,
        largest: dict[str, tuple[float, float]],
    ) -> Float32:
        """Builds the linear or the block `name` and returns what the simulator makes of `inputs` fp32 [texts,
        rows, inputs], or `expected` where nothing is simulated. ToolkitError where the toolkit refuses."""
        block = name.endswith(".block")
        job = (
            block_job(self._plain, int(name.split(".")[1]), samples.shape[1])
            if block
            else linear_job(self._plain, name)
        )
        found, codes = self._built(job, samples, inputs, largest)
        near = None
        if found is not None:
            found = found.reshape(expected.shape)
            near = cosine(found, expected)
            if not self.operators:
                with writing(self._out):
                    np.savez(self._folder / CHECK, x=inputs[0], expected=expected[0], simulated=found[0])
        self.operators.append(
            {
                "name": name,
                "kind": job.kind,
                "file": f"{name}.rknn",
                "inputs": job.inputs,
                "outputs": job.outputs,
                "scales": "the artifact's" if codes else "the toolkit's",
                "cosine": near,
            }
        )
        self._request.progress("operators", len(self.operators), self._count())
        return expected if found is None else found

    def _count(self) -> int:
        tree = self._plain.tree
        each = 1 if self._request.blocks else len(tree.layers[0].linears)
        return len(tree.layers) * each + (not tree.headless)

    def _built(
        self, job: Job, samples: Float32, inputs: Float32, largest: dict[str, tuple[float, float]]
    ) -> tuple[Float32 | None, bool]:
        """What is simulated, and whether with the artifact's scales."""
        ways = (True, False) if self._request.kind == _OURS else (False,)
        for codes in ways:
            try:
                return self._try(job, samples, inputs, largest, codes), codes
            except ToolkitError as error:
                if codes == ways[-1]:
                    raise
                self.notes.append(f"{error}; its own scales were taken for {job.name}.")
        raise AssertionError

    def _try(
        self,
        job: Job,
        samples: Float32,
        inputs: Float32,
        largest: dict[str, tuple[float, float]],
        codes: bool,
    ) -> Float32 | None:
        simulate = bool(self._request.tokens)
        with tempfile.TemporaryDirectory(dir=self._work) as place:
            folder = Path(place)
            with writing(self._out):
                write_job(
                    folder,
                    self._plain,
                    job,
                    self._request.kind,
                    codes=codes,
                    samples=list(samples),
                    inputs=inputs if simulate else None,
                    largest=largest,
                )
            if self._toolkit is None:
                self._toolkit = self._stack.enter_context(Toolkit(self._python, self._work))
            try:
                self._toolkit.do(folder, job.name)
            except ToolkitError:
                if not self._toolkit.alive:
                    self._toolkit = None
                raise
            with writing(self._out):
                (folder / "model.rknn").replace(self._folder / f"{job.name}.rknn")
            return np.load(folder / "simulated.npy") if simulate else None


def cosine(one: Float32, other: Float32) -> float:
    """The cosine of two arrays of one shape."""
    a, b = one.astype(np.float64).reshape(-1), other.astype(np.float64).reshape(-1)
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-30))


RKNN: Final = Target("rknn", "operators for the vendor's runtime", (_OURS, "w16a16i_dfp"), write_rknn)
