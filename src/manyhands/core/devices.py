"""Which accelerators this process may use, and how a call is shown those that it was given.

Nothing is started and no vendor's library is loaded to find them: the environment is read, and folders of the
kernel. The devices of one vendor are used, the first of these that has any: NVIDIA, AMD, Intel.

A device's id is what its vendor's variable takes: an index, or a UUID. A variable is read once in a process, when the
vendor's library starts in it (``cuInit``, ``hsa_init``, ``zeInit``), so it has to be set before the first call that
uses a device, and a process that has used one stays with what it saw.

What each variable means:

CUDA_VISIBLE_DEVICES
    Indices or UUIDs (``GPU-…``, ``MIG-…``), which CUDA shows in this order; it stops at the first that is not there,
    and shows none for an empty text. [1]_ Of numbers it reads the digits they start with, and for one that comes
    twice it shows none at all. [2]_ A process can use one MIG device of each GPU instance, with drivers before R570
    one in all. [3]_
ROCR_VISIBLE_DEVICES
    Filters in ROCr, below HIP and OpenCL. Indices or UUIDs; it stops at the first that is not there or comes twice;
    none for an empty text. [4]_
HIP_VISIBLE_DEVICES
    Filters in HIP. Its indices count *what ROCr left over*: with both set to 1 on two devices, none is left. [5]_
    Where it is empty or not there HIP takes CUDA_VISIBLE_DEVICES in its stead, and where that is too, shows all. [6]_
ZE_AFFINITY_MASK
    Indices of Intel's devices or of their tiles, or ``device.tile``; what is not there is passed over, and an empty
    text shows all. [7]_

.. [1] CUDA Programming Guide, "CUDA Environment Variables"
.. [2] PyTorch, ``torch/cuda/__init__.py``, ``_parse_visible_devices``
.. [3] NVIDIA Multi-Instance GPU User Guide, "CUDA Device Enumeration"
.. [4] ROCR-Runtime, ``core/inc/amd_filter_device.h``
.. [5] ROCm documentation, "GPU isolation techniques"; mcmonkeyprojects/SwarmUI issue 566
.. [6] ROCm clr, ``rocclr/device/rocm/rocdevice.cpp``, ``Device::init``; ROCm/hip issue 3001
.. [7] Intel compute-runtime, ``ExecutionEnvironment::parseAffinityMask``
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NVIDIA = "nvidia"
AMD = "amd"
INTEL = "intel"

_CUDA = "CUDA_VISIBLE_DEVICES"
_HIP = "HIP_VISIBLE_DEVICES"
_ROCR = "ROCR_VISIBLE_DEVICES"
_ZE = "ZE_AFFINITY_MASK"

_NODES = "/sys/class/kfd/kfd/topology/nodes"

_NO_INDEX = "-1"
"""Hides all from CUDA, ROCr and HIP. An empty text would not, from HIP."""

_NO_INTEL_INDEX = "999999"
"""Hides all from Level Zero, which passes over what is not there. An empty text would not."""


def _list_folder(path: str) -> Sequence[str]:
    """The names in a folder; none where there is no such folder, or it is not ours to read."""
    try:
        return os.listdir(path)
    except OSError:
        return ()


def _read_file(path: str) -> str:
    """The text of a file; empty where there is none, or it is not ours to read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def find_gpus(
    environment: Mapping[str, str],
    list_folder: Callable[[str], Sequence[str]] = _list_folder,
    read_file: Callable[[str], str] = _read_file,
) -> tuple[str, ...]:
    """The ids of the devices that this process may use.

    Parameters
    ----------
    environment
        Usually `os.environ`.
    list_folder, read_file
        Names in a folder, and the text of a file; nothing for what cannot be read.

    Examples
    --------
    >>> find_gpus({"CUDA_VISIBLE_DEVICES": "2,3"}, list_folder=lambda path: ())
    ('2', '3')
    >>> find_gpus({"CUDA_VISIBLE_DEVICES": ""})
    ()
    """
    return detect_gpus(environment, list_folder, read_file)[1]


def detect_gpus(
    environment: Mapping[str, str],
    list_folder: Callable[[str], Sequence[str]] = _list_folder,
    read_file: Callable[[str], str] = _read_file,
) -> tuple[str | None, tuple[str, ...]]:
    """The kind of the devices that this process may use, and their ids; None where there are none.

    A variable that names devices is believed where no device can be seen, since there are systems whose devices have
    other files (WSL 2, for one).

    Of Intel there is the variable alone. What Level Zero counts with cannot be read off the kernel's folders:
    integrated devices are among them, a device of several tiles is one or several by its model, by the driver's version
    and by ``ZE_FLAT_DEVICE_HIERARCHY`` [7]_, and no file that both drivers (i915 and xe) are known to have tells which
    ones are discrete.
    """
    nvidia, amd = _count_nvidia(list_folder), _count_amd(list_folder, read_file)
    for kind, gpus in (
        (NVIDIA, _list_nvidia(environment, nvidia, amd)),
        (AMD, _list_amd(environment, amd)),
        (INTEL, _list_intel(environment)),
    ):
        if gpus:
            return kind, gpus
    return None, ()


def make_environment(devices: Sequence[str], kind: str | None = None) -> dict[str, str]:
    """Variables that show a call these devices and no others of their vendor.

    AMD's are filtered in HIP alone. ROCR_VISIBLE_DEVICES stays as this process found it, because what is set for HIP
    counts from there; CUDA_VISIBLE_DEVICES says the same as HIP's, because that is what programs written for
    both vendors read, and some insist that the two agree (Ray, ``accelerators/amd_gpu.py``). So programs that use
    ROCr without HIP see all devices.

    Parameters
    ----------
    devices
        Ids, as `detect_gpus` gives them; with none, the devices of all vendors are hidden.
    kind
        Theirs; None where it is not known, and every vendor's variables are set.

    Examples
    --------
    >>> make_environment(["1"], AMD)
    {'CUDA_VISIBLE_DEVICES': '1', 'HIP_VISIBLE_DEVICES': '1'}
    """
    if not devices:
        return {_CUDA: _NO_INDEX, _HIP: _NO_INDEX, _ZE: _NO_INTEL_INDEX}
    ids = ",".join(devices)
    variables = {}
    if kind != INTEL:
        variables[_CUDA] = ids
    if kind in (AMD, None):
        variables[_HIP] = ids
    # Level Zero takes numbers alone, and its driver fails at UUIDs.
    if kind == INTEL or (kind is None and all(map(_is_intel_index, devices))):
        variables[_ZE] = ids
    return variables


def _list_nvidia(environment: Mapping[str, str], count: int, amd_count: int) -> tuple[str, ...]:
    said = environment.get(_CUDA)
    if said is None:
        return _number(count)
    if not count and (amd_count or _HIP in environment or _ROCR in environment):
        return ()  # it speaks to HIP
    return _parse_ids(said, count, twice_hides_all=True)


def _list_amd(environment: Mapping[str, str], count: int) -> tuple[str, ...]:
    """The ids that HIP counts with, see `make_environment`."""
    below, own = environment.get(_ROCR), environment.get(_HIP)
    if not count and below is None and own is None:
        return ()
    if below is not None:
        count = len(_parse_ids(below, count))
        if not count:
            return ()
    said = own or environment.get(_CUDA, own)
    # HIP shows all where both are empty. Who sets them so means none, and is told so here.
    return _number(count) if said is None else _parse_ids(said, count)


def _list_intel(environment: Mapping[str, str]) -> tuple[str, ...]:
    entries = [entry.strip() for entry in environment.get(_ZE, "").split(",")]
    known = [entry for entry in entries if _is_intel_index(entry) and entry != _NO_INTEL_INDEX]
    return tuple(dict.fromkeys(known))


def _number(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _parse_ids(text: str, count: int, *, twice_hides_all: bool = False) -> tuple[str, ...]:
    """The ids up to the first that is not there.

    Parameters
    ----------
    count
        Devices that there are; 0 where that is not known.
    twice_hides_all
        Whether an id that comes twice leaves none, and not those before it.
    """
    ids: list[str] = []
    for entry in text.split(","):
        found = _parse_id(entry.strip(), count)
        if found is None:
            break
        if found in ids:
            return () if twice_hides_all else tuple(ids)
        ids.append(found)
    return tuple(ids)


def _parse_id(entry: str, count: int) -> str | None:
    if entry.startswith(("GPU-", "MIG-")):
        return entry
    digits = entry[: len(entry) - len(entry.lstrip("0123456789"))]
    if not digits or (count and int(digits) >= count):
        return None
    return str(int(digits))


def _is_intel_index(entry: str) -> bool:
    """Whether it is an index, with or without that of a tile."""
    device, dot, tile = entry.partition(".")
    return _is_number(device) and (not dot or _is_number(tile))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _count_nvidia(list_folder: Callable[[str], Sequence[str]]) -> int:
    """Devices of NVIDIA whose files are there.

    A container sees all of the machine's devices in /proc, with the files of those alone that it may use. Where /proc
    lists fewer than there are files, the files are left over.
    """
    files = sum(
        name.startswith("nvidia") and _is_number(name.removeprefix("nvidia"))
        for name in list_folder("/dev")
    )
    listed = len(list_folder("/proc/driver/nvidia/gpus")) if files else 0
    return min(files, listed) if listed else files


def _count_amd(list_folder: Callable[[str], Sequence[str]], read_file: Callable[[str], str]) -> int:
    """Devices of AMD whose files are there: nodes of the kernel's list that have SIMD units, as processors have not.

    As with NVIDIA, a container sees all of them listed and is given the files of some, /dev/kfd and one in /dev/dri for
    each. Those that its control group denies it have properties that cannot be read.
    """
    nodes = list_folder(_NODES)
    if not nodes or "kfd" not in list_folder("/dev"):
        return 0
    files = list_folder("/dev/dri")
    count = 0
    for node in nodes:
        properties = dict(
            line.split(maxsplit=1)
            for line in read_file(f"{_NODES}/{node}/properties").splitlines()
            if " " in line.strip()
        )
        if properties.get("simd_count", "0").strip() == "0":
            continue
        count += f"renderD{properties.get('drm_render_minor', '').strip()}" in files
    return count
