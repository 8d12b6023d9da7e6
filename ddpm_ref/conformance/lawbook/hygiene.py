"""Laws on batches: a batch is its samples, and results are finite at every step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm_ref.conformance.agreement.examples import SHARED, calls
from ddpm_ref.conformance.agreement.methods import METHODS, Method
from ddpm_ref.conformance.implementation import Bound, Implementation, NotOffered, Posterior
from ddpm_ref.conformance.lawbook.law import AGREEMENT, Case, Law, settings_with_truth
from ddpm_ref.conformance.lawbook.truth import Truth
from ddpm_ref.conformance.setting import Setting


def tensors(result: Any) -> list[Tensor]:
    """All tensors of a result, of which there must be one: over none, every law here would hold."""
    if isinstance(result, (Posterior, Bound)):
        parts = list(vars(result).values())
    elif isinstance(result, Mapping):
        parts = list(result.values())
    else:
        parts = list(result) if isinstance(result, tuple) else [result]
    found = [part for part in parts if isinstance(part, Tensor)]
    if not found:
        raise TypeError(f"a {type(result).__name__} without a tensor was returned")
    return found


def _per_sample(arguments: Mapping[str, Any]) -> list[str]:
    """Arguments with a row for each sample; the parameters of a distribution have none."""
    shared = () if "log_scale" in arguments else SHARED
    return [n for n, v in arguments.items() if isinstance(v, Tensor) and n not in shared]


def batched(arguments: Mapping[str, Any]) -> int:
    """The number of samples of a call."""
    return len(arguments[_per_sample(arguments)[0]])


def row(arguments: Mapping[str, Any], index: int) -> list[Any]:
    """The arguments of one sample alone."""
    names = _per_sample(arguments)
    return [v[index : index + 1] if n in names else v for n, v in arguments.items()]


def apart(these: Sequence[Tensor], those: Sequence[Tensor]) -> Tensor:
    """The largest difference of two results, absolute below 1 and relative above, `[1]`; infinite for other shapes."""
    worst = torch.zeros((), dtype=torch.float64)
    for one, other in zip(these, those, strict=True):
        if one.shape != other.shape:
            return torch.full((1,), torch.inf)
        same = (one == other) | (one.isnan() & other.isnan())
        gap = (one.double() - other.double()).abs() / (1 + other.double().abs())
        if gap.numel():
            worst = torch.maximum(worst, torch.where(same, 0.0, gap).max())
    return worst.reshape(1)


def own_settings(implementation: Implementation) -> Iterator[tuple[Setting, Truth, bool]]:
    """The settings; every option is asked of the first one with more than two steps."""
    found = list(settings_with_truth(implementation))
    first = next((setting for setting, known in found if known.T > 2), None)
    yield from ((setting, known, setting == first) for setting, known in found)


def _separable(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known, every in own_settings(implementation):
        for batch, dims in ((2, (3,)), (3, (3,)), (5, (2, 3, 7))):
            for method, arguments in calls(
                implementation, setting, known, batch, dims, every=every
            ):

                def difference(
                    candidate: Implementation, method: str = method, arguments: Any = arguments
                ) -> Tensor:
                    ask, size = getattr(candidate, method), batched(arguments)
                    together = tensors(ask(*arguments.values()))
                    found = []
                    for index in range(size):
                        alone = tensors(ask(*row(arguments, index)))
                        found.append(apart([_part(v, index, size) for v in together], alone))
                    return torch.stack(found).max(0).values

                yield Case(
                    method,
                    arguments,
                    torch.zeros(1, dtype=torch.float64),
                    run=difference,
                    label=f"{method} of a batch minus {method} of its samples one by one",
                )


def _part(whole: Tensor, index: int, size: int) -> Tensor:
    """Sample `index` of a result; a result that broadcasts over the batch is everybody's."""
    return whole[index : index + 1] if whole.ndim and len(whole) == size else whole


def _finite(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known, every in own_settings(implementation):
        most = 64 if implementation.one_step_a_call else known.T
        size = max(min(known.T, most), 2)
        for method, arguments in calls(implementation, setting, known, size, (1,), every=every):

            def bad(
                candidate: Implementation, method: str = method, arguments: Any = arguments
            ) -> Tensor:
                result = getattr(candidate, method)(*arguments.values())
                if isinstance(result, Posterior):
                    result = (result.mean, result.variance)
                    if all(part is None for part in result):
                        raise NotOffered(f"{candidate.name} offers neither mean nor variance")
                kept = tensors(result)
                return torch.tensor([sum(int((~torch.isfinite(v)).sum()) for v in kept)])

            yield Case(
                method,
                arguments,
                torch.zeros(1, dtype=torch.float64),
                run=bad,
                label=f"number of NaN or infinite entries of {method} over all t",
            )


def strided(value: Tensor, how: str) -> Tensor:
    """The same numbers in another place of memory: every second entry, the axes in reverse order, one row for all, or channels last."""
    if not value.is_floating_point():
        return value
    if how == "slice":
        return torch.stack([value, value + 1], -1).contiguous()[..., 0]
    if how == "expanded":
        return value[:1].expand_as(value)
    if how == "channels last" and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    order = tuple(range(value.ndim))[::-1]
    return value.permute(order).contiguous().permute(order)


def _layout(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    for setting, known, every in own_settings(implementation):
        if not every:
            continue
        for batch, dims in ((2, (3, 5, 7)), (1033, (2,))):
            # Code that is called sample by sample never sees how a batch is laid out: a large one tells nothing new.
            few = min(batch, 37) if implementation.one_step_a_call else batch
            for method, given in calls(implementation, setting, known, few, dims):
                for how in ("slice", "transposed", "expanded", "channels last"):

                    def difference(
                        candidate: Any, method: str = method, given: Any = given, how: str = how
                    ) -> Tensor:
                        own = {name: candidate.own(value) for name, value in given.items()}
                        names = _per_sample(own)
                        other = {n: strided(v, how) if n in names else v for n, v in own.items()}
                        plain = [
                            v.contiguous().clone() if isinstance(v, Tensor) else v
                            for v in other.values()
                        ]
                        result = tensors(candidate.ask(method, *other.values()))
                        return apart(result, tensors(candidate.ask(method, *plain)))

                    yield Case(
                        method,
                        given,
                        torch.zeros(1, dtype=torch.float64),
                        run=difference,
                        label=f"{method} of {how} tensors minus {method} of contiguous ones",
                    )


def _results(implementation: Implementation, dtype: torch.dtype) -> Iterator[Case]:
    """Two questions for each result: is its dtype the samples' own (or as wide), and is it where they are and dense."""
    for setting, known, every in own_settings(implementation):
        if not every:
            continue
        for method, given in calls(implementation, setting, known, 3, (2, 5)):
            if method not in METHODS or dtype not in _dtypes(implementation, METHODS[method]):
                continue
            arguments = {
                name: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v
                for name, v in given.items()
            }
            exactly = METHODS[method].kept and implementation.keeps_dtype

            def formed(
                candidate: Implementation,
                method: str = method,
                given: Any = arguments,
                exactly: bool = exactly,
                widest: float = max(
                    torch.finfo(d).eps for d in (dtype, implementation.table_dtype)
                ),
            ) -> Tensor:
                result = getattr(candidate, method)(*given.values())
                found = tensors(result.mean if isinstance(result, Posterior) else result)
                wrong = [
                    v.dtype != dtype if exactly else torch.finfo(v.dtype).eps > widest
                    for v in found
                ]
                return torch.tensor([sum(wrong), sum(v.device.type != "cpu" for v in found)])

            yield Case(
                method,
                arguments,
                torch.zeros(2, dtype=torch.float64),
                run=formed,
                label=f"results of {method} whose dtype is not {'that' if exactly else 'as wide as that'} of the samples{'' if exactly else ' or tables'}, and on another device",
            )


def _dtypes(implementation: Implementation, method: Method) -> tuple[torch.dtype, ...]:
    """What the method takes: samples in every dtype, densities and losses in those that are declared for them."""
    if method.kept or not method.operands:
        return tuple(implementation.dtypes)
    return tuple(d for d in implementation.density_dtypes if d in implementation.dtypes)


LAWS = (
    Law(
        "I17-separable",
        "a batch is its samples",
        "f(batch)[i] = f(sample i), for every function of a batch; also when B = D.",
        "Samples are independent: nothing may be averaged, broadcast or mixed across them.",
        "Seen: mean(w)·mean(err); a (B, B) outer product; a weight broadcast along the wrong axis.",
        {torch.float64: 1e-12},
        "The same arithmetic in another batch shape.",
        _separable,
        mixed=True,
    ),
    Law(
        "I14-finite",
        "finite everywhere",
        "Every function is finite at every t where it is defined.",
        "All denominators are positive for β in (0, 1).",
        "Seen: log β under a square root; 0/0 at the first or last step.",
        {torch.float64: 0.0},
        "A count.",
        _finite,
        mixed=True,
    ),
    Law(
        "I29-results",
        "form of every result",
        "What has the shape of a sample has the sample's dtype, every other result one as wide as that or as the tables'; all are where the samples are.",
        "A float64 coefficient promotes a whole network; a loss in bf16 has two digits.",
        "torch type promotion.",
        dict.fromkeys(AGREEMENT, 0.0),
        "A count.",
        _results,
        mixed=True,
        measures="form",
    ),
    Law(
        "I32-layout",
        "layout does not matter",
        "f(x) is the same for the same numbers in memory of another order: every second entry, transposed, expanded, channels last.",
        "A tensor is its numbers, not its strides.",
        "`view`, `data_ptr` and kernels that take contiguous memory for granted.",
        {torch.float64: 1e-12},
        "The same arithmetic in another order of memory.",
        _layout,
        mixed=True,
    ),
)
