"""The first example is the first thing that people try: it runs as it stands."""
import pathlib
import re

import numpy as np

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def test_the_first_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example, = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    names = {}
    exec(compile(example, str(README), "exec"), names)
    assert "{'obs': (300, 84), 'reward': (300,)}" in capsys.readouterr().out
    assert names["reward"].shape == (300,) and names["reward"][0] == 0
    assert names["obs"].shape == (300, 84) and np.array_equal(names["part"], names["obs"][10:20])
