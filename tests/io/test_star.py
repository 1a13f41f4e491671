"""STAR files: dialects, RELION's own bytes, damage, and the starfile package as an oracle."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryotk.errors import DataError, FileFormatError, FormatWarning, MissingFileError
from cryotk.io.star import StarBlock, format_star, read_star, write_star
from cryotk.io.star_write import _float, _floats

HEAD = "\n# version 30001\n\ndata_particles\n\nloop_ \n_rlnImageName #1 \n_rlnDefocusU #2 \n_rlnClassNumber #3 \n"


def _write(folder, text: str | bytes):
    path = folder / "t.star"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_are_typed(tmp_path):
    block = read_star(_write(tmp_path, HEAD + "000001@a.mrcs 10000.5 3 \n000002@a.mrcs 9000 4 \n \n"))["particles"]
    assert block.version == 30001 and len(block) == 2
    assert block["rlnImageName"].tolist() == ["000001@a.mrcs", "000002@a.mrcs"]
    assert block["rlnDefocusU"].dtype == np.float64 and block["rlnClassNumber"].dtype == np.int64


def test_relions_files_keep_their_bytes(shared):
    same = 0
    for path in sorted((shared / "data").rglob("*.star")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FormatWarning)
            try:
                blocks = read_star(path)
            except FileFormatError:
                continue
        same += format_star(blocks) == path.read_bytes()
    assert same >= 270


def test_every_file_is_read_or_refused_with_a_line(shared):
    refused = {}
    for path in sorted(shared.rglob("*.star")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FormatWarning)
            try:
                read_star(path)
            except FileFormatError as error:
                refused[path.name] = str(error)
    assert set(refused) == {"motionCorr.star", "coords_suffix_autopick.star", "coords_suffix_extract.star",
                            "coords_suffix_manualpick.star", "job.star", "sample.star"}  # fmt: skip
    assert "line 20" in refused["sample.star"] and "5 values for 4 columns" in refused["sample.star"]


@pytest.mark.parametrize("name", ["relion31_spa_betagal/Refine3D/job029/run_data.star", "relion5_sta_hiv/default_pipeline.star",
                                  "star_files/starfile/one_loop.star", "star_files/starfile/default_pipeline.star"])  # fmt: skip
def test_agrees_with_starfile(shared, name):
    path = shared / "data" / name
    theirs = starfile.read(path, always_dict=True)
    ours = read_star(path)
    for key, table in theirs.items():
        if not hasattr(table, "columns"):
            assert {k: str(v) for k, v in ours[key].columns.items()} == {k: str(v) for k, v in table.items()}
            continue
        assert list(ours[key].columns) == list(table.columns)
        for c in table.columns:
            theirs_c = table[c].to_numpy()
            if theirs_c.dtype.kind in "iuf":
                np.testing.assert_array_equal(ours[key][c].astype(float), theirs_c.astype(float))
            else:
                assert [str(v) for v in ours[key][c]] == [str(v) for v in theirs_c]


@pytest.mark.parametrize(("body", "words"), [
    ("1@a.mrcs 1 1 \n2@a.mrcs 2 \n3@a.mrcs 3 3 \n", ("line 11", "2 values for 3 columns", "mend or remove")),
    ("1@a.mrcs 1 1 \n2@a.mrcs 2 2 9 \n", ("line 11", "4 values for 3 columns")),
    ("1@a.mrcs 1 1 9\n2@a.mrcs 2 2 9 \n", ("line 10", "4 values for 3 columns")),
    ("1@a.mrcs 1 1 \n2@a.mrcs 2", ("line 11", "cut", "copy it again")),
    ("1@a.mrcs 1 1 \n \n2@a.mrcs 2 2 \n", ("line 12", "empty line")),
])  # fmt: skip
def test_damaged_rows_are_named(tmp_path, body, words):
    with pytest.raises(FileFormatError) as caught:
        read_star(_write(tmp_path, HEAD + body))
    assert all(w in str(caught.value) for w in words)


def test_ragged_row_far_down_a_long_table(tmp_path):
    rows = [f"{i:06d}@a.mrcs 10000.0 1 \n" for i in range(200_000)]
    rows[150_000] = "150000@a.mrcs 10000.0 \n"
    with pytest.raises(FileFormatError, match="line 150010"):
        read_star(_write(tmp_path, HEAD + "".join(rows) + " \n"))


def test_text_in_one_piece_of_a_long_column_keeps_the_text_of_all(tmp_path):
    rows = [f"{i:06d} \n" for i in range(100_000)]
    rows[90_000] = "odd \n"
    values = read_star(_write(tmp_path, "data_\n\nloop_\n_myLabel\n" + "".join(rows)))[""]["myLabel"]
    assert values[1] == "000001" and values[90_000] == "odd"


def test_value_cut_short_at_the_end_of_the_file_is_suspected(tmp_path):
    with pytest.warns(FormatWarning, match="cut"):
        read_star(_write(tmp_path, HEAD + "1@a.mrcs 1 1 \n2@a.mrcs 2 1"))


@pytest.mark.parametrize(("content", "words"), [
    (b"", "empty"), (b"\n\n", "empty"), (b"hello\nworld\n", "no line starting with data_"), (b"\0\1\2" * 500, "binary"),
])  # fmt: skip
def test_not_a_star_file(tmp_path, content, words):
    with pytest.raises(FileFormatError, match=words):
        read_star(_write(tmp_path, content))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        read_star(tmp_path / "none.star")
    with pytest.raises(FileFormatError, match="folder"):
        read_star(tmp_path)


def test_column_twice(tmp_path):
    with pytest.raises(FileFormatError, match="line 5: column _rlnVoltage appears twice"):
        read_star(_write(tmp_path, "data_\nloop_\n_rlnVoltage\n_rlnDefocusU\n_rlnVoltage\n1 2 3\n"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("blank", [" ", "\t", " \t "])
def test_line_ends_tabs_comments_and_quotes(tmp_path, end, blank):
    lines = ["# made by hand", "data_x", "", "loop_", "; remark", "_rlnA#1", "# in the header", "_rlnMicrographName #2", "_rlnB",
             blank.join(["1", "'a b'", "2.5"]), "# between rows", blank.join(["2", '"it\'s"', "3.5", "# tail"])]  # fmt: skip
    block = read_star(_write(tmp_path, end.join(lines)))["x"]
    assert block["rlnA"].tolist() == [1, 2] and block["rlnB"].tolist() == [2.5, 3.5]
    assert block["rlnMicrographName"].tolist() == ["a b", "it's"]


def test_list_then_loop_and_two_loops(tmp_path):
    blocks = read_star(
        _write(tmp_path, "data_a\n_rlnVoltage 300\n_rlnX abc\nloop_\n_rlnDefocusU\n1\n2\n\nloop_\n_rlnDefocusV\n3\n")
    )
    assert blocks["a"]["rlnVoltage"] == 300.0 and blocks["a"]["rlnX"] == "abc"
    assert blocks["a.loop"]["rlnDefocusU"].tolist() == [1, 2] and blocks["a.loop.2"]["rlnDefocusV"].tolist() == [3]


def test_blocks_that_are_not_wanted_are_not_parsed(tmp_path):
    path = _write(tmp_path, "data_bad\nloop_\n_a\n_b\n1 2 3\n\ndata_good\n_rlnVoltage 300\n")
    assert list(read_star(path, ["good"])) == ["good"]
    with pytest.raises(FileFormatError):
        read_star(path)


def test_words_and_underscored_numbers_stay_text(tmp_path):
    block = read_star(_write(tmp_path, "data_\nloop_\n_a\n_b\n_c\nTrue 1_2 nan\nFalse 3_4 inf\n"))[""]
    assert block["a"].tolist() == ["True", "False"] and block["b"].tolist() == ["1_2", "3_4"]
    assert np.isnan(block["c"][0]) and block["c"][1] == math.inf


def test_what_no_file_can_hold_is_refused_and_the_old_file_stays(tmp_path):
    path = _write(tmp_path, "old")
    with pytest.raises(DataError, match="line break"):
        write_star(path, {"a": StarBlock("a", {"rlnImageName": np.array(["x\ny"], object)})})
    with pytest.raises(DataError, match="different lengths"):
        write_star(path, {"a": StarBlock("a", {"rlnA": np.arange(2), "rlnB": np.arange(3)})})
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def _c_format(v: float, old: bool) -> str:
    digits = 6 if old or not v < 0 else 5
    return f"{v:12.{digits}e}" if 0 < abs(v) < 0.001 or abs(v) > 1e5 else f"{v:12.{digits}f}"


@pytest.mark.parametrize("old", [False, True])
def test_fast_numbers_are_those_of_c(old):
    rng = np.random.default_rng(1)
    values = np.concatenate([
        rng.normal(0, 10.0 ** rng.integers(-5, 8, 200_000)), rng.integers(-200_000_000, 200_000_000, 50_000) / 2e6,
        [0.0, -0.0, 1e5, -1e5, 99999.9999999, -99999.99999, 9999.9999999, -9999.9999996, 0.001, -0.001,
         0.0009999999, 5e-324, 1e308],
    ])  # fmt: skip
    fields = _floats(values, old)
    ours = [bytes(f[f != 0]).decode() for f in fields]
    assert ours == [_c_format(v, old) for v in values.tolist()]
    assert _float(math.nan, old).strip() == "nan" and _float(-math.inf, old).strip() == "-inf"


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="\x07\u0085"), max_size=12)
NUMBER = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(TEXT, NUMBER, st.integers(-(2**62), 2**62)), min_size=1, max_size=20))
def test_round_trip(tmp_path, rows):
    names, floats, ints = zip(*rows, strict=True)
    block = StarBlock(
        "t", {"rlnMicrographName": np.array(names, object), "rlnDefocusU": np.array(floats), "rlnClassNumber": np.array(ints)}
    )
    path = tmp_path / "r.star"
    write_star(path, {"t": block})
    back = read_star(path)["t"]
    assert back["rlnMicrographName"].tolist() == list(names)
    assert back["rlnClassNumber"].tolist() == list(ints)
    np.testing.assert_allclose(back["rlnDefocusU"], floats, rtol=5e-6, atol=5e-6)
    assert format_star({"t": back}) == path.read_bytes()


@pytest.mark.parametrize(
    "value", [";", "; x", "_rlnA", "data_", "data_x", "loop_", "#", "# version 30001", "'", '"', "'a b\"", "", " "]
)
def test_first_values_that_look_like_something_else(tmp_path, value):
    for columns in ({"rlnMicrographName": np.array([value, value], object)},
                    {"rlnMicrographName": np.array([value, "b"], object), "rlnDefocusU": np.ones(2)}):  # fmt: skip
        write_star(tmp_path / "v.star", {"t": StarBlock("t", columns)})
        assert read_star(tmp_path / "v.star")["t"]["rlnMicrographName"].tolist() == columns["rlnMicrographName"].tolist()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(st.sampled_from(["rlnVoltage", "rlnImageSize", "rlnReferenceImage", "rlnIsHelix"]), NUMBER, min_size=1)
)
def test_lists_round_trip(tmp_path, values):
    entries = {k: {"rlnImageSize": int(v), "rlnIsHelix": v > 0, "rlnReferenceImage": f"a{v}"}.get(k, v) for k, v in values.items()}
    path = tmp_path / "l.star"
    write_star(path, {"t": StarBlock("t", entries, False)})
    back = read_star(path)["t"].columns
    assert list(back) == list(entries)
    for k, v in entries.items():
        assert back[k] == (pytest.approx(v, rel=5e-6, abs=5e-6) if k == "rlnVoltage" else v)


TOKEN = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr), st.integers(-(2**70), 2**70).map(str),
    st.from_regex(r"[+-]?[0-9]{1,22}(\.[0-9]{0,22})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["nan", "-inf", "1_2", "abc", "1.", ".5", "-", "1e", "0x1", "1e400", "-0.000000", "   12", "é"]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(TOKEN, TOKEN, st.sampled_from(["a/b.mrc", "c@d", "7"])), min_size=1, max_size=8),
    tail=st.sampled_from([" \n", "\n", ""]),
)
def test_compiled_and_plain_parsers_agree(rows, tail):
    from cryotk.io.star_rows import typed_column
    from cryotk.io.star_scan import scan_rows

    text = ("".join(" ".join(r) + " \n" for r in rows)[:-2] + tail).encode()
    ours = scan_rows(text, 3, {2})
    if ours is None:
        return
    for i, values in enumerate(ours):
        tokens = [r[i].strip() for r in rows]
        if values.dtype == object:
            assert values.tolist() == tokens
        else:
            assert values.tolist() == [float(t) for t in tokens]
            assert typed_column("rlnDefocusU", values).dtype == np.float64


def test_compiled_parser_sees_ragged_rows():
    from cryotk.io.star_scan import scan_rows

    assert scan_rows(b"1 2 3\n4 5\n", 3, set()) is None
    assert scan_rows(b"1 2 3\n4 5 6 7\n", 3, set()) is None
    names = scan_rows(b"same 1\nsame 2\nnew 3\n", 2, {0})[0]
    assert names.tolist() == ["same", "same", "new"] and names[0] is names[1]


def test_a_long_file_through_the_compiled_parser(tmp_path, monkeypatch):
    import cryotk.io.star as module

    rows = 100_000
    block = StarBlock("particles", {"rlnImageName": np.array([f"{i + 1:06d}@a.mrcs" for i in range(rows)], object),
                                    "rlnDefocusU": np.linspace(5e3, 2e4, rows), "rlnClassNumber": np.arange(rows) % 7})  # fmt: skip
    write_star(tmp_path / "a.star", {"particles": block})
    plain = read_star(tmp_path / "a.star")["particles"]
    monkeypatch.setattr(module, "_COMPILED_FROM", 0)
    compiled = read_star(tmp_path / "a.star")["particles"]
    for c in block.columns:
        assert compiled[c].dtype == plain[c].dtype
        np.testing.assert_array_equal(compiled[c], plain[c])
    text = (tmp_path / "a.star").read_bytes().replace(b"050000@a.mrcs", b"050000 @a.mrcs")
    with pytest.raises(FileFormatError, match="line 50009"):
        read_star(_write(tmp_path, text))


def test_long_files_show_a_bar_and_short_ones_load_none(tmp_path, monkeypatch):
    from cryotk.io import progress

    steps = []

    class Bar:
        def __init__(self, **options):
            steps.append(options["desc"])

        def __enter__(self):
            return self

        def __exit__(self, *_error):
            return None

        def update(self, n):
            steps.append(n)

    path = tmp_path / "a.star"
    write_star(path, {"t": StarBlock("t", {"rlnDefocusU": np.arange(1000.0)})})
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    read_star(path)
    assert steps == [], "a short file has none"
    monkeypatch.setattr(progress, "_LONG", 1000)
    read_star(path)
    assert steps[0] == "reading a.star" and 13_000 < sum(steps[1:]) <= path.stat().st_size
    steps.clear()
    write_star(path, {"t": StarBlock("t", {"rlnDefocusU": np.arange(1000.0)})})
    assert steps[0] == "writing a.star" and sum(steps[1:]) == path.stat().st_size
