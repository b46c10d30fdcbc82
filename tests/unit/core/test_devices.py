"""Which accelerators there are, and what a call is shown of them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.core.devices import (
    AMD,
    INTEL,
    NVIDIA,
    _list_folder,
    _read_file,
    detect_gpus,
    find_gpus,
    make_environment,
)

CUDA, HIP = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
ROCR, ZE = "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"


class Machine:
    """Files and their texts, in place of /dev, /proc and /sys."""

    def __init__(self, *paths: str, **texts: str) -> None:
        self.texts = dict.fromkeys(paths, "") | texts

    def __or__(self, other: "Machine") -> "Machine":
        return Machine(**(self.texts | other.texts))

    def list_folder(self, folder: str) -> list[str]:
        inside = {path[len(folder) + 1 :] for path in self.texts if path.startswith(f"{folder}/")}
        return sorted({name.split("/")[0] for name in inside})

    def read_file(self, path: str) -> str:
        return self.texts.get(path, "")

    def detect(self, **environment: str) -> tuple[str | None, tuple[str, ...]]:
        return detect_gpus(environment, self.list_folder, self.read_file)

    def find(self, **environment: str) -> tuple[str, ...]:
        return find_gpus(environment, self.list_folder, self.read_file)


def make_nvidia(files: int, listed: int | None = None) -> Machine:
    count = files if listed is None else listed
    return Machine(
        "/dev/null",
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia-caps/nvidia-cap1",
        *(f"/dev/nvidia{number}" for number in range(files)),
        *(f"/proc/driver/nvidia/gpus/0000:0{number}:00.0/information" for number in range(count)),
    )


def make_amd(gpus: int, *, kfd: bool = True, files: tuple[int, ...] | None = None) -> Machine:
    """Two processors, then the devices; `files` are the numbers of those that may be opened."""
    nodes = "/sys/class/kfd/kfd/topology/nodes"
    processor = "cpu_cores_count 64\nsimd_count 0\nmem_banks_count 1\ndrm_render_minor 0\n"
    texts = {f"{nodes}/{node}/properties": processor for node in range(2)}
    for gpu in range(gpus):
        texts[f"{nodes}/{gpu + 2}/properties"] = (
            f"cpu_cores_count 0\nsimd_count 304\n\ndrm_render_minor {128 + gpu}\nunique_id 12\n"
        )
    for number in range(gpus) if files is None else files:
        texts[f"/dev/dri/renderD{128 + number}"] = ""
    if kfd:
        texts["/dev/kfd"] = ""
    return Machine("/dev/null", "/dev/dri/card0", **texts)


BARE = Machine("/dev/null")


def test_a_machine_without_devices_has_none() -> None:
    assert BARE.detect() == (None, ())
    assert Machine().detect() == (None, ())


def test_devices_of_this_machine_can_be_asked_for() -> None:
    gpus = find_gpus(os.environ)
    assert len(set(gpus)) == len(gpus)
    assert find_gpus({**os.environ, CUDA: "", HIP: "", ZE: ""}) == ()


def test_what_cannot_be_read_is_empty(tmp_path: Path) -> None:
    (tmp_path / "properties").write_bytes(b"simd_count 4\n\xff")
    assert list(_list_folder(str(tmp_path))) == ["properties"]
    assert _read_file(str(tmp_path / "properties")).startswith("simd_count 4\n")
    for path in (str(tmp_path / "nothing"), str(tmp_path / "properties" / "below")):
        assert list(_list_folder(path)) == []
        assert _read_file(path) == ""
    assert _read_file(str(tmp_path)) == ""


# --- NVIDIA -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 12])
def test_nvidia_devices_are_counted(count: int) -> None:
    assert make_nvidia(count).detect() == (NVIDIA, tuple(map(str, range(count))))


def test_a_container_has_the_nvidia_devices_whose_files_it_was_given() -> None:
    given_one = Machine("/dev/nvidia3") | make_nvidia(0, listed=8)
    assert given_one.find() == ("0",), "CUDA counts those that it can open"
    assert make_nvidia(0, listed=8).find() == (), "/proc shows them in every container"


def test_nvidia_devices_are_found_where_proc_is_hidden() -> None:
    assert make_nvidia(2, listed=0).find() == ("0", "1")


def test_files_of_devices_that_are_gone_do_not_count() -> None:
    assert make_nvidia(4, listed=2).find() == ("0", "1")


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        ("0", ("0",)),
        ("2,1", ("2", "1")),
        (" 2 , 1 ", ("2", "1")),
        ("", ()),
        ("-1", ()),
        ("0,2,-1,1", ("0", "2")),
        ("NoDevFiles", ()),
        ("none", ()),
        ("0,,1", ("0",)),
        ("0,7,1", ("0",)),
        ("01", ("1",)),
        ("1gpu2,2ampere", ("1", "2")),
        ("1,1", ()),
        ("٣", ()),
        ("GPU-8932f937", ("GPU-8932f937",)),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1", None),
        ("MIG-a1,MIG-b2", ("MIG-a1", "MIG-b2")),
        ("MIG-GPU-8932f937/1/0,MIG-GPU-8932f937/2/0", None),
        ("GPU-1,GPU-1", ()),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_does(said: str, ids: tuple[str, ...] | None) -> None:
    expected = tuple(said.split(",")) if ids is None else ids
    assert make_nvidia(4).detect(CUDA_VISIBLE_DEVICES=said) == (
        NVIDIA if expected else None,
        expected,
    )


def test_cuda_visible_devices_is_believed_where_no_device_can_be_seen() -> None:
    assert BARE.detect(CUDA_VISIBLE_DEVICES="5,6") == (NVIDIA, ("5", "6"))


# --- AMD --------------------------------------------------------------------------


def test_amd_devices_are_counted_without_processors() -> None:
    assert make_amd(4).detect() == (AMD, ("0", "1", "2", "3"))
    assert make_amd(0).detect() == (None, ())


def test_a_container_has_the_amd_devices_whose_files_it_was_given() -> None:
    assert make_amd(4, files=(2, 3)).find() == ("0", "1")
    assert make_amd(4, files=()).find() == ()
    assert make_amd(4, kfd=False).find() == ()


def test_properties_that_cannot_be_read_are_of_devices_that_are_not_ours() -> None:
    machine = make_amd(3)
    machine.texts["/sys/class/kfd/kfd/topology/nodes/3/properties"] = ""
    assert machine.find() == ("0", "1")


@pytest.mark.parametrize(
    ("environment", "ids"),
    [
        ({HIP: "2,0"}, ("2", "0")),
        ({CUDA: "1"}, ("1",)),
        ({HIP: "2", CUDA: "1"}, ("2",)),
        ({HIP: "", CUDA: "1"}, ("1",)),
        ({HIP: ""}, ()),
        ({CUDA: ""}, ()),
        ({HIP: "-1"}, ()),
        ({HIP: "1,9,2"}, ("1",)),
        ({HIP: "GPU-1f2e3d"}, ("GPU-1f2e3d",)),
        ({ROCR: "2,3"}, ("0", "1")),
        ({ROCR: "GPU-DEADBEEFDEADBEEF,3"}, ("0", "1")),
        ({ROCR: "2,2,3"}, ("0",)),
        ({ROCR: "3,9"}, ("0",)),
        ({ROCR: ""}, ()),
        ({ROCR: "-1"}, ()),
        ({ROCR: "", HIP: "0"}, ()),
        ({ROCR: "2,3", HIP: "1"}, ("1",)),
        ({ROCR: "2,3", HIP: "2"}, ()),
        ({ROCR: "1", HIP: "1"}, ()),
        ({ROCR: "2,3", CUDA: "1,0"}, ("1", "0")),
    ],
)
def test_variables_of_amd_are_read_as_hip_does(
    environment: dict[str, str], ids: tuple[str, ...]
) -> None:
    assert make_amd(4).detect(**environment) == (AMD if ids else None, ids)


def test_variables_of_amd_are_believed_where_no_device_can_be_seen() -> None:
    assert BARE.detect(HIP_VISIBLE_DEVICES="0,1") == (AMD, ("0", "1"))
    assert BARE.detect(ROCR_VISIBLE_DEVICES="4,5,6") == (AMD, ("0", "1", "2"))
    assert BARE.detect(HIP_VISIBLE_DEVICES="1", CUDA_VISIBLE_DEVICES="1") == (AMD, ("1",))


# --- Intel, and several vendors ---------------------------------------------------


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        ("0,1", ("0", "1")),
        ("0.1,1.0", ("0.1", "1.0")),
        (" 3 ,3", ("3",)),
        ("", ()),
        ("default", ()),
        ("0,gpu,1.,2", ("0", "2")),
    ],
)
def test_devices_of_intel_are_those_of_the_mask(said: str, ids: tuple[str, ...]) -> None:
    assert BARE.detect(ZE_AFFINITY_MASK=said) == (INTEL if ids else None, ids)


def test_render_nodes_alone_are_no_devices() -> None:
    integrated = Machine("/dev/dri/renderD128", "/dev/dri/card0", "/sys/class/drm/renderD128/dev")
    assert integrated.detect() == (None, ())


def test_of_several_vendors_nvidia_comes_first() -> None:
    both = make_nvidia(2) | make_amd(1)
    assert both.detect() == (NVIDIA, ("0", "1"))
    assert both.detect(CUDA_VISIBLE_DEVICES="1", ZE_AFFINITY_MASK="0") == (NVIDIA, ("1",))
    assert both.detect(CUDA_VISIBLE_DEVICES="", HIP_VISIBLE_DEVICES="0") == (AMD, ("0",))
    assert both.detect(CUDA_VISIBLE_DEVICES="") == (None, ())


# --- what a call is shown ---------------------------------------------------------


@pytest.mark.parametrize(
    ("devices", "kind", "variables"),
    [
        (["2", "0"], NVIDIA, {CUDA: "2,0"}),
        (["MIG-a1"], NVIDIA, {CUDA: "MIG-a1"}),
        (["2", "0"], AMD, {CUDA: "2,0", HIP: "2,0"}),
        (["0.1", "1"], INTEL, {ZE: "0.1,1"}),
        (["0", "1"], None, {CUDA: "0,1", HIP: "0,1", ZE: "0,1"}),
        (["GPU-1f"], None, {CUDA: "GPU-1f", HIP: "GPU-1f"}),
        ([], NVIDIA, {CUDA: "-1", HIP: "-1", ZE: "999999"}),
        ([], None, {CUDA: "-1", HIP: "-1", ZE: "999999"}),
    ],
)
def test_a_call_is_shown_its_devices(
    devices: list[str], kind: str | None, variables: dict[str, str]
) -> None:
    assert make_environment(devices, kind) == variables


MACHINES = {
    "nvidia": (make_nvidia(4), {}),
    "nvidia, some": (make_nvidia(4), {CUDA: "3,1,2"}),
    "nvidia by uuid": (make_nvidia(2), {CUDA: "GPU-a,GPU-b"}),
    "amd": (make_amd(4), {}),
    "amd, some": (make_amd(4), {HIP: "3,1"}),
    "amd, some below": (make_amd(4), {ROCR: "1,3,2"}),
    "amd, some below and above": (make_amd(4), {ROCR: "1,3,2", HIP: "2,1"}),
    "amd, unseen": (BARE, {HIP: "0,1", CUDA: "0,1"}),
    "both": (make_nvidia(2) | make_amd(2), {}),
    "intel": (BARE, {ZE: "0,1,2"}),
    "intel, tiles": (BARE, {ZE: "0.0,0.1,1.0"}),
    "nothing known": (BARE, {CUDA: "0,1", HIP: "0,1", ZE: "0,1"}),
}


@pytest.mark.parametrize("name", MACHINES)
@given(data=st.data())
def test_a_call_finds_exactly_the_devices_that_it_was_given(name: str, data: st.DataObject) -> None:
    machine, environment = MACHINES[name]
    kind, gpus = machine.detect(**environment)
    assert gpus
    chosen = data.draw(st.lists(st.sampled_from(gpus), unique=True, min_size=1))
    inside = environment | make_environment(chosen, kind)
    assert machine.detect(**inside) == (kind, tuple(chosen)), "a session within the call, too"


@pytest.mark.parametrize("name", MACHINES)
def test_a_call_that_is_given_no_device_finds_none(name: str) -> None:
    machine, environment = MACHINES[name]
    kind, _ = machine.detect(**environment)
    assert machine.find(**(environment | make_environment([], kind))) == ()


@given(st.text(alphabet="0123456789,-. GPUMIGx", max_size=12))
def test_no_text_of_a_variable_is_too_strange(text: str) -> None:
    for variable in (CUDA, HIP, ROCR, ZE):
        for machine in (make_nvidia(3), make_amd(3), BARE):
            gpus = machine.find(**{variable: text})
            assert len(set(gpus)) == len(gpus)
            assert all(gpus)
