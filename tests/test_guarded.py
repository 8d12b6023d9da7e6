"""How laws call an implementation: own arguments, restored state, the right types; settings that contradict themselves; slips in words."""

import inspect
import math

import pytest
import torch
from torch import Tensor

from bench.__main__ import main
from ddpm_ref.conformance import Implementation, NotOffered, Posterior, Reference, Setting
from ddpm_ref.conformance.guarded import Guarded, InterfaceError
from ddpm_ref.conformance.judge import judge
from ddpm_ref.conformance.lawbook import LAWS
from ddpm_ref.conformance.remarks import remarks

pytestmark = pytest.mark.any_torch

LINEAR = Setting("linear", 10)
X, T = torch.zeros(2, 3, dtype=torch.float64), torch.tensor([1, 7])


class Short(Reference):
    """The reference on one short schedule."""

    def settings(self) -> tuple[Setting, ...]:
        return (LINEAR,)


def message(id: str, kind: type[Implementation]) -> str:
    outcome = judge(LAWS[id], kind(), torch.float64)
    assert outcome.failed
    return outcome.message


class Steps(Short):
    """Counts its own steps in place."""

    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        result = super().q_sample(setting, x0, t, noise)
        t -= 1
        return result


def test_a_changed_input_fails_one_law_which_says_which() -> None:
    failed = [law.id for law in LAWS.values() if judge(law, Steps(), torch.float64).failed]
    assert failed == ["I18-unchanged"]
    said = message("I18-unchanged", Steps)
    assert "entries that q_sample changes in its arguments (x0, t, noise)" in said
    assert "at [1] = 3.0" in said


class NoGradient(Short):
    def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float16)
        return super().q_sample(setting, x0, t, noise)


def test_a_changed_state_is_charged_to_nobody_else() -> None:
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    failed = [law.id for law in LAWS.values() if judge(law, NoGradient(), torch.float64).failed]
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before
    assert failed == ["I18-state"]
    assert "that q_sample changes" in message("I18-state", NoGradient)
    assert "= 2.0, expected 0.0" in message("I18-state", NoGradient)


def test_drawing_noise_is_no_change_of_state_and_seeding_is() -> None:
    class Draws(Short):
        seeds = False

        def q_sample(self, setting: Setting, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
            if self.seeds:
                torch.manual_seed(3)
            torch.randn(5)
            return super().q_sample(setting, x0, t, noise)

    class Seeds(Draws):
        seeds = True

    state = torch.random.get_rng_state()
    assert judge(LAWS["I18-state"], Draws(), torch.float64).status == "pass"
    assert judge(LAWS["I18-state"], Seeds(), torch.float64).status == "fail"
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("method", "arguments", "returned", "words"),
    [
        ("posterior", (LINEAR, X, X, T), (X, X, X), "returned tuple; a ddpm_ref.conformance.Post"),
        ("posterior", (LINEAR, X, X, T), Posterior(X.numpy()), "(…).mean is a ndarray; a torch"),
        ("tables", (LINEAR,), {"beta": [0.1]}, "(…)['beta'] is a list; a torch.Tensor is expected"),
        ("prior_kl", (LINEAR, X), None, "returned NoneType; a torch.Tensor is expected"),
        ("reverse_variance", (LINEAR, "beta", T), X, "returned Tensor; a pair of torch.Tensors"),
        ("gaussian_entropy", (X,), "3", "returned str; a float is expected"),
    ],
)
def test_another_type_is_named_with_the_place_of_the_method(
    method: str, arguments: tuple, returned: object, words: str
) -> None:
    kind = type("Mine", (Implementation,), {method: lambda *given: returned})
    with pytest.raises(InterfaceError) as caught:
        getattr(Guarded(kind()), method)(*arguments)
    assert words in str(caught.value)
    assert caught.value.place.startswith("test_guarded.py:")


def test_numbers_and_half_filled_results_pass() -> None:
    class Mine(Implementation):
        def gaussian_entropy(self, covariance: Tensor) -> float:
            return torch.tensor(1.0)  # type: ignore[return-value]

        def posterior(self, setting: Setting, x0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
            return Posterior(x0)

    mine = Guarded(Mine())
    assert float(mine.gaussian_entropy(X)) == 1.0
    assert torch.equal(mine.posterior(LINEAR, X, X, T).mean, X)
    assert mine.name == "unnamed"
    with pytest.raises(NotOffered):
        mine.prior_kl(LINEAR, X)


def test_a_wrong_signature_is_said_once_with_the_right_one() -> None:
    class Forgets(Short):
        def q_sample(self, setting: Setting, x0: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
            return x0

    said = message("I1-marginal", Forgets)
    assert "the signature is q_sample(self, setting, x0, t, noise) (test_guarded.py:" in said


def test_a_function_without_a_signature_is_called_all_the_same() -> None:
    class Builtin(Implementation):
        bits_per_dim = staticmethod(max)  # type: ignore[assignment]

    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(max)
    nats = torch.tensor(7.0)
    assert Guarded(Builtin()).bits_per_dim(nats, 3) == nats


def test_not_implemented_comes_with_the_remedy() -> None:
    class Stub(Short):
        """What people write where they have nothing yet; the interface's own word is NotOffered."""

        def prior_kl(self, setting: Setting, x0: Tensor) -> Tensor:
            raise NotImplementedError("later")

    assert "later; raise NotOffered for what you lack" in message("I9-prior", Stub)


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("words", "error", "remedy"),
    [
        ({"beta": (0.1, 0.2)}, ValueError, "has 2 numbers of beta for 5 steps: pass one for each"),
        ({"log_snr": (1.0,)}, ValueError, "has 1 numbers of log_snr for 5 steps"),
        ({"beta": torch.full((5,), 0.1)}, TypeError, "is a Tensor: pass a tuple of numbers"),
        ({"beta": (torch.tensor(0.1),) * 5}, TypeError, "pass a tuple of numbers, tuple("),
        ({"beta": (0.1,) * 5, "log_snr": (0.1,) * 5}, ValueError, "pass one of them"),
        ({"timesteps": (1, 6)}, ValueError, "must increase from at least 1 to at most 5"),
        ({"timesteps": (3, 2, 5)}, ValueError, "must increase"),
        ({"timesteps": (0, 5)}, ValueError, "must increase"),
        ({"timesteps": ()}, ValueError, "must increase"),
    ],
)
def test_a_setting_that_contradicts_itself_is_refused(
    words: dict, error: type[Exception], remedy: str
) -> None:
    with pytest.raises(error) as caught:
        Setting("mine", 5, **words)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(("name", "T"), [("mine", 0), ("mine", 2.0), (3, 5)])
def test_names_and_lengths_of_settings(name: str, T: int) -> None:
    with pytest.raises((TypeError, ValueError)):
        Setting(name, T)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (LINEAR, "settings() returned a Setting; a tuple of Setting is expected"),
        (("linear", "cosine"), "settings() returned a str among them"),
        (None, "settings() returned a NoneType"),
    ],
)
def test_other_settings_are_one_reason_said_beside_the_verdict(found: object, words: str) -> None:
    class Mine(Reference):
        def settings(self):  # type: ignore[no-untyped-def, override]
            return found

    assert words in message("I1-marginal", Mine)
    (note,) = remarks(Mine())
    assert words in note
    assert judge(LAWS["I9-kl"], Mine(), torch.float64).status == "pass"


# ------------------------------------------------------------------------------------------------ remarks


def test_ours_needs_no_remark() -> None:
    assert remarks(Reference()) == ()


def test_misspelt_names_and_unknown_schedules_are_said() -> None:
    class Slips(Implementation):
        first_indx = 1
        _qsample = None

        def settings(self) -> tuple[Setting, ...]:
            return (Setting("Linear", 10), Setting("mine", 2, beta=(0.1, 0.2)))

        def qsample(self, x0: Tensor) -> Tensor:
            return x0

    index, method, nothing, schedule = remarks(Slips())
    assert index.endswith("never called: first_index?")
    assert method.endswith("never called: q_sample?")
    assert nothing.endswith("nothing was verified")
    assert "the schedule 'Linear' is not known by name" in schedule
    assert "'linear'?" in schedule


def test_a_method_of_ones_own_beside_the_right_one_is_no_slip() -> None:
    class Fine(Reference):
        def q_samples(self) -> None: ...

    assert remarks(Fine()) == ()


def test_no_settings_are_said() -> None:
    class Bare(Reference):
        def settings(self) -> tuple[Setting, ...]:
            return ()

    assert remarks(Bare()) == ("settings() is empty: no law about a schedule was asked",)


def test_notes_stand_below_the_verdict_of_a_users_file(tmp_path, capsys) -> None:
    file = tmp_path / "slip.py"
    file.write_text(
        "from ddpm_ref.conformance import Implementation\n"
        "class Slip(Implementation):\n    name = 'slip'\n    def qsample(self): ...\n"
    )
    assert main(["verify", "--against", f"{file}:Slip", "--law", "I9-kl"]) == 0
    assert "note: qsample is no name of Implementation" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ what the laws on manners find


def test_a_law_on_manners_that_finds_a_cause_is_told_before_the_wrong_numbers(
    tmp_path, capsys
) -> None:
    file = tmp_path / "sorted_steps.py"
    file.write_text(
        "from ddpm_ref.conformance import Reference, Setting\n"
        "class Sorts(Reference):\n    name = 'sorts'\n"
        "    def settings(self):\n        return (Setting('linear', 50),)\n"
        "    def q_sample(self, setting, x0, t, noise):\n"
        "        return super().q_sample(setting, x0, t.sort().values, noise)\n"
    )
    words = ["verify", "-v", "--against", f"{file}:Sorts", "--law", "I1", "--law", "I17"]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert out.index("sorts: I17-separable") < out.index("sorts: I1-marginal")


def test_a_name_that_is_missing_in_the_code_behind_an_adapter_is_a_defect_of_that_code(
    tmp_path, capsys
) -> None:
    (tmp_path / "behind.py").write_text("def noisy(x0):\n    return identity(x0)\n")
    file = tmp_path / "in_front.py"
    head = (
        "import behind\nfrom ddpm_ref.conformance import Implementation\n"
        "class Calls(Implementation):\n    name = 'calls'\n"
        "    def q_sample(self, setting, x0, t, noise):\n        return "
    )
    for body, status in (("behind.noisy(x0)", 1), ("beside.noisy(x0)", 2)):
        place = file.with_stem(f"in_front_{status}")
        place.write_text(head + body + "\n")
        assert main(["verify", "--against", f"{place}:Calls", "--law", "I1"]) == status


class Channels(Short):
    """Sums over channels and averages the rest."""

    def loss(self, setting, prediction, *others):  # type: ignore[no-untyped-def, override]
        right = super().loss(setting, prediction, *others)
        return right * prediction.shape[1] if prediction.ndim == 4 else right


class Flat(Short):
    """Forgets that an image has more than one axis."""

    def bound_term(self, setting, prediction, *others):  # type: ignore[no-untyped-def, override]
        return super().bound_term(setting, prediction, *others) / math.prod(prediction.shape[2:])


@pytest.mark.parametrize(("id", "kind"), [("I5-loss", Channels), ("I5-term", Flat)])
def test_images_have_channels_and_two_more_axes(id: str, kind: type[Implementation]) -> None:
    assert "expected" in message(id, kind)


@pytest.mark.parametrize(
    "start", [lambda x: 0 * x, lambda x: 3 * x, lambda x: x + 1], ids=["zero", "wide", "shifted"]
)
def test_a_chain_that_starts_elsewhere_ends_elsewhere(start) -> None:
    """A loop of right steps from a wrong start: the law on constant models cannot see it."""

    class Elsewhere(Short):
        def sample(self, setting, model, shape, parameterization, sampler):  # type: ignore[no-untyped-def, override]
            x = start(torch.randn(shape, dtype=torch.float64))
            for step in range(setting.T, 0, -1):
                t = torch.full((shape[0],), step)
                noise = torch.randn(shape, dtype=torch.float64)
                said = model(x, t)
                x = self.sampler_step(setting, said, x, t, noise, parameterization, sampler, 0.0)
            return x

    class Here(Elsewhere):
        def sample(self, *arguments):  # type: ignore[no-untyped-def, override]
            return Reference.sample(self, *arguments)

    assert judge(LAWS["I16-ends"], Elsewhere(), torch.float64).failed
    assert judge(LAWS["I16-ends"], Here(), torch.float64).status == "pass"
    assert judge(LAWS["I16-chain"], Elsewhere(), torch.float64).status == "pass"
