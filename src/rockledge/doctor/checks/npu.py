"""The NPU beside the CPU: integers are the same, so the logits of the same steps must be the same bits."""

from collections.abc import Iterator

from rockledge.doctor.case import Case
from rockledge.doctor.divergence import divergences
from rockledge.doctor.finding import Finding


def check_npu(case: Case) -> Iterator[Finding]:
    """One finding where any bit differs, or the NPU was given up."""
    run = case.runs.npu
    if run is None:
        return
    device = "the virtual NPU" if run.virtual else "the NPU"
    if not (run.found == run.alone).all():
        apart = float(divergences(run.alone, run.found).mean())
        rows = (run.found != run.alone).any(-1)
        yield Finding(
            check="npu",
            place="NPU",
            severity="alarm",
            cause=f"{device} gives other logits than the CPU after {int(rows.sum())} of {run.tokens} tokens, "
            f"the first after token {int(rows.int().argmax())} ({apart:.3g} nats a token)",
            mend="run with --npu off, and `rockledge npu info` to see what the driver says",
            details={"kl_mean_nats": apart, **run.status},
        )
    elif run.status.get("fallbacks") or run.status.get("faults"):
        yield Finding(
            check="npu",
            place="NPU",
            severity="alarm",
            cause=f"{device} failed {run.status.get('faults', 0)} times, and the CPU did "
            f"{run.status.get('fallbacks', 0)} steps again",
            mend="run `rockledge npu info` to see what the driver says",
            details=dict(run.status),
        )
