"""What parameters mean is written once; every job says it of each of its own."""

import inspect
import re
import subprocess
import sys

import pytest

import cryotk as ctk
from cryotk.errors import SettingsError
from cryotk.jobs.parameters import EXPERT, TEXTS

JOBS = [ctk.Class2D, ctk.Class3D, ctk.InitialModel, ctk.Refine3D]


def entries(job):
    """Parameters that a docstring has: name -> (type, text)."""
    section = inspect.getdoc(job).partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    out = {}
    for match in re.finditer(r"^(\S[^\n]*?)(?: : ([^\n]*))?\n((?:[ \t]+[^\n]*\n?)*)", section + "\n", re.MULTILINE):
        for name in match[1].split(", "):
            out[name] = (match[2] or "", match[3].strip())
    return out


@pytest.mark.parametrize("job", JOBS, ids=lambda j: j.__name__)
def test_every_parameter_is_described(job):
    found = entries(job)
    names = [n for n in inspect.signature(job).parameters if n != "expert"]
    assert set(names) <= set(found), set(names) - set(found)
    assert all(found[n][0] for n in names), "each has a type"
    without_text = {n for n in names if not found[n][1]}
    assert without_text <= {"n_classes", "n_iterations"}
    # settings that are not in the signature are listed too
    more = set(job.settings_type.model_fields) - set(names)
    assert all(f"``{name}=" in found["**expert"][1] for name in more)
    assert set(found) - set(names) == {"**expert"}
    assert not re.search(r"^\s*\{[\w, ]+\}\s*$", job.__doc__, re.MULTILINE)
    assert max(map(len, job.__doc__.splitlines())) <= 132


def test_shared_texts_are_used_and_settings_have_the_signatures_defaults():
    used = "".join(j.__doc__ for j in JOBS)
    for name in TEXTS:
        assert re.search(rf"^    {re.escape(name)} : ", used, re.MULTILINE), name
    for name in EXPERT:
        assert f"``{name}=" in used, name
    for job in JOBS:
        fields = job.settings_type.model_fields
        for name, parameter in inspect.signature(job).parameters.items():
            if name in fields and parameter.default is not inspect.Parameter.empty and name not in ("seed", "n_classes"):
                assert fields[name].default == parameter.default, (job.__name__, name)


def test_docstrings_may_be_stripped():
    code = "import cryotk as ctk; assert ctk.Class2D.__doc__ is None; print(ctk.Refine3D.__name__)"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "Refine3D", done.stderr[-500:]


BAD = {
    "mask_diameter": -1, "offset_range_px": -1, "offset_step_px": 0, "zero_mask": "maybe", "do_ctf": "maybe",
    "ctf_intact_first_peak": 3, "seed": "x", "compat": "eman", "device": "tpu", "perturbation_factor": 2, "padding": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("job", JOBS, ids=lambda j: j.__name__)
def test_a_wrong_value_of_a_shared_setting_is_named(job, name):
    particles = ctk.simulate.particles(12, 24, 8.0, seed=5, progress=False)
    arguments = {"n_classes": 2} if job is ctk.Class2D else {}
    if job in (ctk.Class3D, ctk.Refine3D):
        arguments["references" if job is ctk.Class3D else "reference"] = ctk.simulate.volume(ctk.simulate.molecule(), 24, 8.0)
    with pytest.raises(SettingsError, match=name):
        job(particles, **(arguments | {"mask_diameter": 170.0, name: BAD[name]}))
    with pytest.raises(SettingsError, match=f"{job.__name__}.*no_such_thing"):
        job(particles, **arguments, no_such_thing=1)
