"""Which GPUs are found: a driver that is not there, one that hides some, names by index and by UUID."""

from __future__ import annotations

from typing import Any

from quire.accelerator import accelerators, missing_extra


class Driver:
    """NVML as a plain object: two GPUs."""

    names = ("NVIDIA H200", "NVIDIA L4")
    uuids = (b"GPU-aa", b"GPU-bb")

    def __init__(self, broken: bool = False) -> None:
        self.broken, self.is_open = broken, False

    def nvmlInit_v2(self) -> int:  # noqa: N802 - the library's own names
        self.is_open = not self.broken
        return 9 if self.broken else 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.is_open = False
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.names)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index.value + 1
        return 0 if index.value < len(self.names) else 6

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        handle._obj.value = self.uuids.index(uuid) + 1 if uuid in self.uuids else 0
        return 0 if uuid in self.uuids else 6

    def nvmlDeviceGetName(self, handle: Any, name: Any, size: int) -> int:  # noqa: N802
        name.value = self.names[handle.value - 1].encode()
        return 0

    def nvmlSystemGetDriverVersion(self, version: Any, size: int) -> int:  # noqa: N802
        version.value = b"570.1"
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        memory._obj.total, memory._obj.free = handle.value * 2**30, handle.value * 2**29
        return 0


def found(shown: str | None, driver: Driver | None = None) -> list[str]:
    driver = driver or Driver()
    environ = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    gpus = accelerators(environ, lambda name: driver)
    assert not driver.is_open
    assert all(gpu.memory_free_bytes * 2 == gpu.memory_total_bytes and gpu.driver == "570.1" for gpu in gpus)
    return [gpu.name for gpu in gpus]


def test_what_cuda_shows_is_what_is_found() -> None:
    assert found(None) == ["NVIDIA H200", "NVIDIA L4"]
    assert found("1,0") == ["NVIDIA L4", "NVIDIA H200"]
    assert found("GPU-bb") == ["NVIDIA L4"]
    assert found("") == found("-1") == found("7,0") == []
    assert found("0,9,1") == ["NVIDIA H200"]


def test_without_a_driver_there_is_none() -> None:
    def load(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    assert accelerators({}, load) == ()
    assert found(None, Driver(broken=True)) == []


def test_the_extra_is_looked_for_without_loading_it() -> None:
    assert missing_extra(lambda name: None) == ("torch", "triton")
    assert missing_extra(lambda name: None if name == "triton" else "spec") == ("triton",)
