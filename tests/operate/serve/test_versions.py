"""Versions that come and go, move, break and are taken away: who asks is answered by the right one all the while.

`numbered` has versions 1 to 4, of which each adds its number.
"""

import asyncio
import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from tests.operate.serve.odd import gone, odd, run, stopped
from tests.operate.serve.test_disk import register
from tests.operate.serve.test_model import predict_log, save, write_warmup
from workbench.errors import UsageError
from workbench.operate.serve import launch, policies
from workbench.operate.serve.errors import ServingError
from workbench.operate.serve.inference import Target
from workbench.operate.serve.metrics import Metrics
from workbench.operate.serve.protos import model_server_config_pb2
from workbench.operate.serve.settings import Settings
from workbench.operate.serve.versions import Versions
from workbench.run import warm

X = np.zeros(1, "float32")


def added(number: int, x: Any) -> dict[str, Any]:
    return {"y": x + number}


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("numbered")
    for number in range(1, 5):
        save(root / str(number), partial(added, number))
    return root


@pytest.fixture
def base(numbered: Path, tmp_path: Path) -> Callable[..., Path]:
    """base(1, 2) is a folder with these versions; called again, it adds to it."""

    def add(*numbers: int, name: str = "m") -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        for number in numbers:
            shutil.copytree(numbered / str(number), tmp_path / name / f".{number}")
            (tmp_path / name / f".{number}").rename(tmp_path / name / str(number))
        return tmp_path / name

    return add


def config(
    base: Path,
    policy: str = "",
    name: str = "m",
    labels: Mapping[str, int] | None = None,
    others: Mapping[str, Path] | None = None,
) -> Any:
    """Of one model, and of others of the newest version."""
    whole = model_server_config_pb2.ModelServerConfig()
    model = whole.model_config_list.config.add(name=name, base_path=str(base), version_labels=labels or {})
    if policy.isdigit():
        model.model_version_policy.latest.num_versions = int(policy)
    elif policy == "all":
        model.model_version_policy.all.SetInParent()
    else:
        model.model_version_policy.specific.versions.extend(map(int, policy.split(",")[:-1]))
        if not policy:
            model.ClearField("model_version_policy")
    for other, path in (others or {}).items():
        whole.model_config_list.config.add(name=other, base_path=str(path))
    return whole


class Served(Versions):
    """`failures`: how often a version could not be loaded."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(Settings(**settings), Metrics())

    @property
    def failures(self) -> int:
        return sum(
            int(line.split()[-1])
            for line in self._metrics.text().decode().splitlines()
            if "load_attempt_count" in line and 'status="fail"' in line
        )

    async def ask(self, name: str = "m", **target: Any) -> float:
        """What the version adds."""
        version = self.find(Target(name, **target))
        return float((await version.run(version.signature(""), {"x": X}, (), 30))["y"][0])

    def loaded(self, name: str = "m") -> list[int]:
        return [state.version for state in self.states(Target(name)) if state.state == "AVAILABLE"]

    async def look(self) -> None:
        await self._look_at_all()

    async def ended(self) -> None:
        """Until what was let go has ended."""
        await asyncio.gather(*self._ending, return_exceptions=True)


def served(main: Callable[[Served], Any], **settings: Any) -> None:
    """Let `main` have a server, of which no process may be left when it is closed."""

    async def whole() -> None:
        versions = Served(**settings)
        try:
            await main(versions)
        finally:
            await versions.close()

    def forks() -> set[int]:
        return {pid for zygote in warm.status() for pid in zygote["kernels"]}

    before = forks()
    run(whole())
    assert all(gone(pid) for pid in forks() - before)


async def until(found: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not found():
            await asyncio.sleep(0.005)


# --- policies and labels ---


def test_the_versions_of_each_policy_are_loaded_and_the_newest_answers(base: Callable[..., Path]) -> None:
    async def main(versions: Served) -> None:
        folder = base(1, 2, 3)
        for policy, loaded, newest in (("", [3], 3), ("2", [3, 2], 3), ("1,2,", [2, 1], 2), ("all", [3, 2, 1], 3)):
            await versions.configure(config(folder, policy))
            assert versions.loaded() == loaded
            assert await versions.ask() == newest
        assert await versions.ask(version=1) == 1
        with pytest.raises(ServingError, match=r"m has no version 4; loaded: 1, 2, 3") as raised:
            versions.find(Target("m", version=4))
        assert raised.value.code == "NOT_FOUND"

    served(main)


def test_a_label_moves_as_its_version_is_loaded_and_is_never_at_nothing(base: Callable[..., Path]) -> None:
    async def main(versions: Served) -> None:
        folder = base(1, 2)
        await versions.configure(config(folder, "1,", labels={"stable": 1}))
        moving = asyncio.create_task(versions.configure(config(folder, "2,", labels={"stable": 2})))
        seen = []
        while not moving.done():
            seen.append(await versions.ask(label="stable"))
        await moving
        assert (sorted(seen), set(seen) <= {1, 2}, seen[0]) == (seen, True, 1)
        assert await versions.ask(label="stable") == 2
        with pytest.raises(ServingError, match=r"m has no label 'canary'; its labels: stable") as raised:
            versions.find(Target("m", label="canary"))
        assert raised.value.code == "INVALID_ARGUMENT"

    served(main)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_label_of_a_version_that_is_not_there_stays_where_it_is(base: Callable[..., Path], allowed: bool) -> None:
    async def main(versions: Served) -> None:
        folder = base(1)
        await versions.configure(config(folder, labels={"stable": 1}))
        later = versions.configure(config(folder, labels={"stable": 2, "canary": 3}))
        if allowed:
            await later
        else:
            with pytest.raises(ServingError, match=r"^m: labels of .* not loaded: canary of 3, stable of 2$") as raised:
                await later
            assert raised.value.code == "FAILED_PRECONDITION"
        assert await versions.ask(label="stable") == 1
        base(2)
        await versions.look()
        assert await versions.ask(label="stable") == 2

    served(main, allow_version_labels_for_unavailable_models=allowed)


def test_requests_without_a_label_go_to_the_default_and_a_share_to_the_canary(base: Callable[..., Path]) -> None:
    async def main(versions: Served) -> None:
        await versions.configure(config(base(1, 2, 3), "all", labels={"stable": 1, "canary": 2}))
        asked = [versions.find(Target("m")).number for _ in range(2000)]
        assert (set(asked), 250 < asked.count(2) < 550) == ({1, 2}, True)  # 400, and 8 standard deviations
        for user in range(30):
            assert len({versions.find(Target("m", sticky=str(user))).number for _ in range(5)}) == 1
        assert {versions.find(Target("m", label="stable")).number for _ in range(50)} == {1}
        assert {versions.find(Target("m", version=3)).number for _ in range(50)} == {3}
        await versions.configure(config(base(), "all", labels={"canary": 3}))
        assert versions.find(Target("m", label="canary")).number == 3
        stays = next(str(user) for user in range(1000) if not policies.drawn(20, "m", str(user)))
        with pytest.raises(ServingError, match=r"m has no version with the label stable; loaded: 1, 2, 3"):
            versions.find(Target("m", sticky=stays))

    served(main, canary=20.0, default_label="stable")


# --- versions that break ---


def truncated(folder: Path, models: Path) -> None:
    shutil.copytree(models / "digits" / "1", folder)
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1])


def garbage(folder: Path, models: Path) -> None:
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"garbage" * 100)


def without_a_model(folder: Path, models: Path) -> None:
    folder.mkdir()
    (folder / "README").touch()


def aborting(folder: Path, models: Path) -> None:
    shutil.copytree(models / "digits" / "1", folder)
    write_warmup(folder, predict_log(image=np.ones((1, 1, 1), "float32")))


def flipped(folder: Path, models: Path) -> None:
    shutil.copytree(models / "affine" / "1", folder)
    register(folder)
    data = bytearray((folder / "saved_model.pb").read_bytes())
    data[-1] ^= 1
    (folder / "saved_model.pb").write_bytes(data)


BROKEN = {
    truncated: ("DATA_LOSS|OUT_OF_RANGE|INVALID_ARGUMENT", ""),
    garbage: ("INTERNAL", "Cannot parse file"),
    without_a_model: ("INTERNAL", "SavedModel file does not exist"),
    aborting: ("INTERNAL", "the model's process died of SIGABRT while it loaded the model"),
    flipped: ("DATA_LOSS", "damaged since it was registered: .*saved_model.pb was changed"),
}


def test_broken_versions_are_told_once_replace_no_good_one_and_are_loaded_when_they_are_mended(
    base: Callable[..., Path], models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = {kind.__name__: base(1, name=kind.__name__) for kind in BROKEN}
    (name, first), *others = folders.items()

    async def main(versions: Served) -> None:
        whole = config(first, name=name, others=dict(others))
        await versions.configure(whole)
        for kind in BROKEN:
            kind(folders[kind.__name__] / "2", models)
        await versions.look()
        for kind, (code, message) in BROKEN.items():
            state = versions.states(Target(kind.__name__))[0]
            assert (state.version, state.state) == (2, "END")
            assert re.fullmatch(code, state.code), state
            assert re.search(message, state.message)
        await versions.look()
        assert versions.failures == caplog.text.count("is not tried again until its files change") == len(BROKEN)
        with pytest.raises(ServingError, match=r"garbage: not loaded: 2: .*Cannot parse.*") as raised:
            await versions.configure(whole)
        assert raised.value.code == "FAILED_PRECONDITION"
        for each, folder in folders.items():
            assert await versions.ask(each) == 1
            shutil.rmtree(folder / "2")
            base(2, name=each)
        await versions.look()
        for each in folders:
            assert await versions.ask(each) == 2
            assert versions.loaded(each) == [2]
        await versions.configure(whole)

    served(main)


def test_a_process_that_could_not_be_started_is_tried_again(
    base: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(versions: Served) -> None:
        async def fail(order: Any) -> Any:
            raise BlockingIOError(11, "no process is left")

        with monkeypatch.context() as patch:
            patch.setattr(launch, "start", fail)
            with pytest.raises(
                ServingError, match=r"m: no version of .* is loaded; not loaded: 1: .* no process is left"
            ):
                await versions.configure(config(base(1)))
            await versions.look()
        (state,) = versions.states(Target("m"))
        assert (state.state, state.code) == ("END", "UNAVAILABLE")
        assert caplog.text.count("cannot be loaded") == 1
        await versions.look()
        assert await versions.ask() == 1

    served(main)


def test_a_version_is_loaded_from_where_the_config_says_even_if_its_number_is_the_same(
    base: Callable[..., Path], tmp_path: Path
) -> None:
    async def main(versions: Served) -> None:
        await versions.configure(config(base(1)))
        base(2, name="other").joinpath("2").rename(tmp_path / "other" / "0001")
        await versions.configure(config(tmp_path / "other"))
        assert await versions.ask(version=1) == 2
        with pytest.raises(ServingError, match=r"m: no version of .*/nowhere is loaded"):
            await versions.configure(config(tmp_path / "nowhere"))
        assert await versions.ask() == 2

    served(main)


# --- versions and storage that disappear ---


def test_storage_that_disappears_takes_no_version_with_it(
    base: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(versions: Served) -> None:
        folder = base(1, 2)
        for policy in ("", "2,"):
            await versions.configure(config(folder, policy))
            caplog.clear()
            folder.rename(tmp_path / "elsewhere")
            for _ in range(2):
                await versions.look()
            assert await versions.ask() == 2
            assert caplog.text.count("has no version") == 1
            (tmp_path / "elsewhere").rename(folder)
            await versions.look()
            assert (await versions.ask(), versions.loaded()) == (2, [2])

    served(main)


def test_a_folder_that_is_removed_is_served_on_until_an_older_one_can_take_its_place(base: Callable[..., Path]) -> None:
    async def main(versions: Served) -> None:
        folder = base(3)
        await versions.configure(config(folder))
        shutil.rmtree(folder / "3")
        await versions.look()
        assert await versions.ask() == 3
        base(1, 2, 3)
        await versions.look()
        shutil.rmtree(folder / "3")
        await versions.look()
        assert (await versions.ask(), versions.loaded()) == (2, [2])
        await versions.ended()
        assert [(state.version, state.state) for state in versions.states(Target("m"))] == [
            (3, "END"),
            (2, "AVAILABLE"),
        ]

    served(main)


# --- models that come and go ---


def test_a_model_that_is_no_longer_in_the_config_answers_what_is_under_way_and_ends(base: Callable[..., Path]) -> None:
    async def main(versions: Served) -> None:
        folder = base(1)
        await versions.configure(config(folder, others={"other": folder}))
        version = versions.find(Target("m"))
        (process,) = version.replicas._processes
        with stopped(process.pid):
            asked = asyncio.create_task(versions.ask())
            await asyncio.sleep(0.01)
            await versions.configure(config(folder, name="other"))
            with pytest.raises(ServingError, match=r"no model 'm' is served here") as raised:
                versions.find(Target("m"))
            assert raised.value.code == "NOT_FOUND"
        assert await asked == 1
        await versions.ended()
        assert gone(process.pid)
        assert await versions.ask("other") == 1

    served(main)


def test_a_config_that_makes_no_sense_changes_nothing(base: Callable[..., Path]) -> None:
    async def main(versions: Served) -> None:
        await versions.configure(config(base(1)))
        bad = config(base(), others={"other": base()})
        bad.model_config_list.config[1].name = ""
        with pytest.raises(ServingError, match=r"models need names"):
            await versions.configure(bad)
        assert await versions.ask() == 1

    served(main)


def test_two_who_configure_at_the_same_time_leave_what_the_later_one_said(base: Callable[..., Path]) -> None:
    async def main(versions: Served) -> None:
        folder = base(1, 2)
        await asyncio.gather(
            versions.configure(config(folder, "1,", labels={"stable": 1}, others={"gone": folder})),
            versions.configure(config(folder, "2,", labels={"stable": 2})),
        )
        await versions.ended()
        assert (await versions.ask(label="stable"), versions.loaded()) == (2, [2])
        with pytest.raises(ServingError, match=r"no model 'gone'"):
            versions.find(Target("gone"))

    served(main)


@pytest.fixture
def slow(models: Path, tmp_path: Path) -> Path:
    """A model that is still busy with its warm-up when the test has ended."""
    shutil.copytree(odd(models), tmp_path / "slow" / "1")
    write_warmup(tmp_path / "slow" / "1", predict_log("busy", x=np.full(1, 10_000, "float32")))
    return tmp_path / "slow"


def test_a_model_that_takes_long_to_load_holds_up_no_other(base: Callable[..., Path], slow: Path) -> None:
    async def main(versions: Served) -> None:
        configuring = asyncio.create_task(versions.configure(config(base(1), others={"slow": slow})))
        watching = asyncio.create_task(versions.watch())
        await until(lambda: "m" in versions._models and versions.loaded() == [1])
        base(2)
        await until(lambda: versions.loaded() == [2])
        assert not versions.ready()
        assert [state.state for state in versions.states(Target("slow"))] == ["LOADING"]
        await versions.close()  # gives the load up
        await configuring
        watching.cancel()
        await asyncio.wait([watching])

    served(main, file_system_poll_wait_seconds=0.05)


def test_a_model_that_is_removed_while_it_loads_is_given_up(base: Callable[..., Path], slow: Path) -> None:
    async def main(versions: Served) -> None:
        configuring = asyncio.create_task(versions.configure(config(base(1), others={"slow": slow})))
        await until(lambda: "slow" in versions._models and versions.states(Target("slow")))
        await asyncio.sleep(0.2)  # it has a process now
        await versions.configure(config(base()))
        await configuring
        await versions.ended()
        assert versions.ready()

    served(main)


# --- what is told ---


def test_states_are_told_of_all_versions_of_one_or_of_a_label(base: Callable[..., Path]) -> None:
    async def main(versions: Served) -> None:
        assert not versions.ready()
        await versions.configure(config(base(1, 2), "all", labels={"stable": 1}))
        assert versions.ready()
        assert [state.version for state in versions.states(Target("m"))] == [2, 1]
        for target in (Target("m", version=1), Target("m", label="stable")):
            assert [state.version for state in versions.states(target)] == [1]
        for target, said in (
            (Target("x"), r"no model 'x' is served here"),
            (Target("m", version=9), r"m has no version 9"),
        ):
            with pytest.raises(ServingError, match=said) as raised:
                versions.states(target)
            assert raised.value.code == "NOT_FOUND"

    served(main)


def test_a_config_file_is_read_again_and_one_that_is_bad_changes_nothing_and_is_told_once(
    base: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "models.config"

    async def main(versions: Served) -> None:
        file.write_text(text_format.MessageToString(config(base(1, 2), "1,")))
        await versions.read_config()
        assert await versions.ask() == 1
        file.write_text("model_config_list {")
        with pytest.raises(UsageError, match=r"models.config"):
            await versions.read_config()
        for _ in range(2):
            await versions._read_again()
        assert caplog.text.count("models.config") == 1
        assert await versions.ask() == 1
        file.write_text(text_format.MessageToString(config(base(), "2,")))
        await versions._read_again()
        assert await versions.ask() == 2

    served(main, model_config_file=file)
