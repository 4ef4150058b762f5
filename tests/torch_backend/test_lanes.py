"""Copies that nobody waits for: with a device whose copies happen late, nothing is overwritten before it was read."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")


class LateLanes:
    """A device on which work is done only when somebody waits for a mark: the worst that may happen."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.num_marks = 0
        self.reached = 0

    def host_buffer(self, num_bytes: int) -> torch.Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8)

    def mark(self) -> LateMark:
        self.num_marks += 1
        return LateMark(self, self.num_marks)


class LateMark:
    def __init__(self, lanes: LateLanes, number: int) -> None:
        self.lanes, self.number = lanes, number

    def wait(self) -> None:
        self.lanes.reached = max(self.lanes.reached, self.number)


def test_uploads_come_in_one_piece_and_of_every_type() -> None:
    from quire.kernels.torch.lanes import PlainLanes, Uploads

    uploads = Uploads(PlainLanes(torch.device("cpu")))
    arrays = [
        np.arange(7, dtype=np.int32), np.array([-1, 2**62], np.int64), np.zeros(0, np.float32),
        np.linspace(0, 1, 6).reshape(2, 3), np.arange(3, dtype=np.float32)[::-1], np.array([2**31], np.uint32),
    ]  # fmt: skip
    there = uploads.upload(arrays)
    assert len({tensor.untyped_storage().data_ptr() for tensor in there}) == 1
    for array, tensor in zip(arrays, there, strict=True):
        assert np.array_equal(tensor.numpy().view(array.dtype), array)
    for size in (10, 10**6):  # the second one is larger than a buffer
        big = np.random.default_rng(size).integers(0, 9, size)
        assert np.array_equal(uploads.upload([big])[0].numpy(), big)
        arrays[0][:] = 0
    assert there[0].tolist() == list(range(7)), "what was sent stays what it was"


def test_a_buffer_is_written_again_only_after_its_copy() -> None:
    from quire.kernels.torch.lanes import NUM_BUFFERS, Uploads

    lanes = LateLanes()
    uploads = Uploads(lanes)
    for number in range(3 * NUM_BUFFERS):
        uploads.upload([np.array([number])])
        assert lanes.reached == max(0, number + 1 - NUM_BUFFERS), "it waits for the oldest copy, not for a later one"


def test_what_comes_back_is_waited_for() -> None:
    from quire.kernels.torch.lanes import Copyback

    lanes = LateLanes()
    copyback = Copyback(lanes, [((3,), torch.int32), ((0, 2), torch.float64), ((2, 2), torch.float64)])
    copyback.tensors[0].copy_(torch.tensor([1, 2, 3]))
    copyback.tensors[2].fill_(0.5)
    copyback.begin()
    assert lanes.reached == 0
    ints, nothing, floats = copyback.wait()
    assert lanes.reached == 1
    assert (ints.tolist(), nothing.shape, floats.tolist()) == ([1, 2, 3], (0, 2), [[0.5, 0.5]] * 2)


@pytest.mark.parametrize("chunk_bytes", [1, 12, 4096])
@pytest.mark.parametrize("kind", [np.float32, np.float16, np.uint16])
def test_weights_travel_in_chunks(chunk_bytes: int, kind: type) -> None:
    from quire.kernels.torch.lanes import PlainLanes
    from quire.kernels.torch.loading import Loading

    array = np.arange(-12, 12).reshape(4, 6).astype(kind)
    array.flags.writeable = False
    loading = Loading(PlainLanes(torch.device("cpu")), chunk_bytes)
    there = loading.load(array)
    assert there.shape == (4, 6)
    assert np.array_equal(there.view(torch.uint8).numpy().tobytes(), array.tobytes())
    assert there.dtype == (torch.bfloat16 if kind is np.uint16 else torch.tensor(array.copy()).dtype)
    loading.release()
    with pytest.raises(TypeError, match="not int64"):
        loading.load(np.zeros((2, 2), np.int64))


def test_weights_never_write_to_a_buffer_on_its_way() -> None:
    from quire.kernels.torch.loading import Loading

    lanes = LateLanes()
    Loading(lanes, 8).load(np.zeros((4, 6), np.float32))
    assert (lanes.num_marks, lanes.reached) == (12, 10), "two chunks are under way, no third"
