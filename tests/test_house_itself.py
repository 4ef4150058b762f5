"""The guardian guarded: each rule of `test_house.py` refuses a line that breaks it."""

from __future__ import annotations

import ast

import pytest
import test_house
from house_map import PACKAGE, Source

DOC = '"""Knows: x. Does not know: y."""\n'
BROKEN = [
    ("every_folder_is_a_room_of_the_picture", "attic/box.py", ""),
    ("imports_run_the_way_of_the_house", "scheduling/x.py", "from quire.models.blocks import Model"),
    ("imports_run_the_way_of_the_house", "models/x.py", "from quire import scheduling"),
    ("imports_run_the_way_of_the_house", "request.py", "import quire.step, quire.server.app"),
    ("imports_run_the_way_of_the_house", "server/x.py", "def f():\n    from quire.runner import runner"),
    ("the_words_and_each_room_use_only_their_libraries", "cache/x.py", "import numpy as np"),
    ("the_words_and_each_room_use_only_their_libraries", "server/x.py", "from numpy import array"),
    ("imports_are_absolute_and_nobody_takes_a_private_name", "cache/x.py", "from . import blocks"),
    ("imports_are_absolute_and_nobody_takes_a_private_name", "cache/x.py", "from os import *"),
    ("imports_are_absolute_and_nobody_takes_a_private_name", "cli/x.py", "from quire.llm import _as_list"),
    ("files_stay_small", "cache/x.py", "x = 1\n" * 400),
    ("functions_stay_small", "cache/x.py", "def f():\n" + "    x = 1\n" * 60),
    ("public_things_are_described", "cache/x.py", "def f():\n    return 1"),
    ("public_things_are_described", "cache/x.py", "class A:\n    'doc'\n    def f(self):\n        return 1"),
    ("nothing_that_can_execute_is_read", "weights/x.py", "import pickle"),
    ("nothing_that_can_execute_is_read", "weights/x.py", "def f(x):\n    return eval(x)"),
    ("nothing_that_can_execute_is_read", "weights/x.py", "def f(x):\n    return np.load(x)"),
    ("development_tools_stay_out_of_the_package", "ops/x.py", "def f():\n    import transformers"),
    ("torch_stays_behind_the_gpu_doors", "ops/x.py", "def f():\n    import torch"),
    ("torch_stays_behind_the_gpu_doors", "runner/x.py", "def f():\n    from quire.kernels.torch import linear"),
    ("torch_stays_behind_the_gpu_doors", "engine/x.py", "from quire.ops.torch_device import TorchDevice"),
    ("only_the_porch_has_a_network", "engine/x.py", "import urllib.request"),
    ("processes_are_started_in_one_place", "server/x.py", "import subprocess"),
    ("no_clock_and_no_chance_in_what_must_be_reproducible", "scheduling/x.py", "import time"),
    ("no_clock_and_no_chance_in_what_must_be_reproducible", "sampling/x.py", "def f():\n    return np.random.rand()"),
    ("no_clock_and_no_chance_in_what_must_be_reproducible", "text/x.py", "def f():\n    return datetime.now()"),
    ("the_environment_is_read_in_named_places_only", "plan.py", "import os\nX = os.environ.get('X')"),
    ("the_environment_is_read_in_named_places_only", "server/x.py", "from os import getenv"),
    ("modules_hold_no_state", "server/x.py", "cache = {}"),
    ("modules_hold_no_state", "server/x.py", "lock = threading.Lock()"),
    ("modules_hold_no_state", "server/x.py", "TABLE = {}\ndef f():\n    TABLE['a'] = 1"),
    ("modules_hold_no_state", "server/x.py", "SEEN = set()\ndef f():\n    SEEN.add(1)"),
    ("modules_hold_no_state", "server/x.py", "COUNT = 0\ndef f():\n    global COUNT"),
    ("no_error_is_swallowed", "engine/x.py", "try:\n    f()\nexcept ValueError:\n    pass"),
    ("no_error_is_swallowed", "engine/x.py", "try:\n    f()\nexcept:\n    raise"),
    ("what_people_send_is_never_checked_by_assert", "server/x.py", "def f(body):\n    assert body"),
    ("model_files_are_pictures", "models/x.py", "x = 1\n" * 150),
    ("there_is_no_drawer_for_odds_and_ends", "server/utils.py", ""),
    ("the_project_speaks_of_itself_alone", "server/x.py", "ROOT = '/home/" + "someone/data'"),
]


def source(name: str, code: str) -> Source:
    text = DOC + code + "\n"
    tree = ast.parse(text)
    return Source(PACKAGE / name, name, text, tree, tuple(ast.walk(tree)))


@pytest.mark.parametrize(("rule", "name", "code"), BROKEN, ids=[f"{rule}-{n}" for n, (rule, _, _) in enumerate(BROKEN)])
def test_a_rule_refuses_what_breaks_it(rule: str, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_house, "sources", lambda: (source(name, code),))
    monkeypatch.setattr(test_house, "native_sources", tuple)
    with pytest.raises(AssertionError, match=name):
        getattr(test_house, f"test_{rule}")()


def test_a_module_that_says_nothing_of_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ast.parse("x = 1")
    silent = Source(PACKAGE / "cache/x.py", "cache/x.py", "x = 1", tree, tuple(ast.walk(tree)))
    monkeypatch.setattr(test_house, "sources", lambda: (silent,))
    with pytest.raises(AssertionError, match="docstring"):
        test_house.test_every_module_says_what_it_knows_and_what_not()


def test_a_native_source_is_held_to_its_size_and_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_house, "sources", tuple)
    monkeypatch.setattr(test_house, "native_sources", lambda: (("kernels/cpu/x.cpp", 'getenv("X");\n' * 401),))
    with pytest.raises(AssertionError, match="401 lines"):
        test_house.test_files_stay_small()
    with pytest.raises(AssertionError, match="environment"):
        test_house.test_the_environment_is_read_in_named_places_only()


def test_lines_in_order_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    good = "from quire.errors import QuireError\nLIMITS = {'a': 1}\n\ndef f(x):\n    'doc'\n    return LIMITS[x]"
    monkeypatch.setattr(test_house, "sources", lambda: (source("cache/x.py", good),))
    monkeypatch.setattr(test_house, "native_sources", tuple)
    for rule in {rule for rule, _, _ in BROKEN}:
        getattr(test_house, f"test_{rule}")()
