"""Configuration: keys declared once, set in four places, checked the same way everywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oiyolo.core.errors import UsageError
from oiyolo.project import config
from oiyolo.project.keys import KEYS, KEYS_BY_NAME, SplitOptions

if TYPE_CHECKING:
    from oiyolo.project.keys import Config, Key

DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"

# For every key: a text that sets a value other than the default, and that value.
OTHER_VALUES: dict[str, tuple[str, object]] = {
    "classes": ("Canoe, Duck", ("Canoe", "Duck")),
    "include_descendants": ("no", False),
    "subsets": ("train,validation", ("train", "validation")),
    "limit": ("250", 250),
    "negatives": ("0.5", 0.5),
    "require_verified": ("TRUE", True),
    "group_of": ("mask", "mask"),
    "occluded": ("drop-box", "drop-box"),
    "truncated": ("drop-image", "drop-image"),
    "depiction": ("drop-box", "drop-box"),
    "inside": ("drop-image", "drop-image"),
    "difficult": ("keep", "keep"),
    "min_box_area": ("0.01", 0.01),
    "max_loss": ("0.1", 0.1),
    "deadline": ("1h  30m", "1h 30m"),
    "on_failure": ("logger 'no boats'", "logger 'no boats'"),
    "on_new_detector": ("http://127.0.0.1:1/hook?key=1", "http://127.0.0.1:1/hook?key=1"),
    "publish_to": ("gs://bucket/boats", "gs://bucket/boats"),
    "retrain_from": ("last", "last"),
    "max_box_area": ("0.9", 0.9),
    "release": ("v6", "v6"),
    "base_url": ("http://127.0.0.1:1/openimages", "http://127.0.0.1:1/openimages"),
    "cache": ("/var/cache/oi", "/var/cache/oi"),
    "sources": ("original,/photos", ("original", "/photos")),
    "mirror_url": ("http://127.0.0.1:1/mirror", "http://127.0.0.1:1/mirror"),
    "jobs": ("4", 4),
    "flickr_per_second": ("2.5", 2.5),
    "transfer_project": ("boats-123", "boats-123"),
    "tolerance": ("0.5", 0.5),
    "size": ("608x320", (608, 320)),
    "fit": ("letterbox", "letterbox"),
    "keep_originals": ("0", False),
    "stream": ("yes", True),
    "skip_bad_rows": ("1", True),
    "train": ("0.8", 0.8),
    "valid": ("0.1", 0.1),
    "test": ("0.1", 0.1),
    "seed": ("7", 7),
    "group_by": ("", ()),
    "official": ("true", True),
    "look": ("no", False),
    "executable": ("/usr/bin/darknet", "/usr/bin/darknet"),
    "source": ("../darknet", "../darknet"),
    "source_url": ("/srv/darknet.git", "/srv/darknet.git"),
    "build_gpu": ("no", "no"),
    "arch": ("7.5;sm_86", ("75", "86")),
    "engine": ("darknet", "darknet"),
    "network": ("yolov4-tiny", "yolov4-tiny"),
    "size_wh": ("320x320", (320, 320)),
    "weights": ("none", "none"),
    "max_batches": ("500", 500),
    "batch": ("32", 32),
    "subdivisions": ("8", 8),
    "learning_rate": ("0.0005", 0.0005),
    "burn_in": ("250", 250),
    "anchors": ("10,13,16.5,30", (10.0, 13.0, 16.5, 30.0)),
    "gpus": ("0,1", "0,1"),
    "map": ("darknet", "darknet"),
    "balance": ("0.1", 0.1),
    "train_seed": ("7", 7),
    "patience": ("2000", 2000),
    "max_rollbacks": ("0", 0),
    "stall_s": ("600", 600.0),
    "colours": ("yes", True),
    "backup_to": ("gs://bucket/runs", "gs://bucket/runs"),
    "log_to": ("mlflow,wandb", ("mlflow", "wandb")),
    "price_per_hour": ("1.20", 1.2),
    "currency": ("EUR", "EUR"),
}


def by_name(key: Key) -> str:
    return key.name


def write(folder: Path, text: str) -> Path:
    path = folder / config.FILE_NAME
    path.write_text(text, encoding="utf-8")
    return path


def value_of(loaded: Config, name: str) -> object:
    return getattr(getattr(loaded, KEYS_BY_NAME[name].section), name)


def test_key_names_are_unique_across_sections() -> None:
    assert len(KEYS_BY_NAME) == len(KEYS)
    assert len({key.option for key in KEYS}) == len(KEYS)
    assert len({key.variable for key in KEYS}) == len(KEYS)


def test_a_keys_environment_variable_has_its_section_and_name() -> None:
    assert KEYS_BY_NAME["mirror_url"].variable == "OIYOLO_IMAGES_MIRROR_URL"
    assert KEYS_BY_NAME["mirror_url"].path == "[images] mirror_url"
    assert KEYS_BY_NAME["classes"].option == "class"


@pytest.mark.parametrize("key", KEYS, ids=by_name)
def test_every_default_is_valid(key: Key) -> None:
    assert key.value(key.default, where="here") == key.default


@pytest.mark.parametrize("key", KEYS, ids=by_name)
def test_every_key_has_a_help_text(key: Key) -> None:
    assert key.help_text
    assert not key.help_text.endswith(".")
    assert key.value_type.expected
    assert key.value_type.placeholder


@pytest.mark.parametrize("key", KEYS, ids=by_name)
def test_every_key_can_be_set_by_its_environment_variable(key: Key, tmp_path: Path) -> None:
    text, expected = OTHER_VALUES[key.name]
    loaded = config.load(tmp_path / "absent.toml", {}, {key.variable: text})
    assert value_of(loaded, key.name) == expected
    assert type(value_of(loaded, key.name)) is type(expected)


@pytest.mark.parametrize("key", KEYS, ids=by_name)
def test_every_key_can_be_set_by_a_keyword_and_round_trips_through_the_file(
    key: Key, tmp_path: Path
) -> None:
    expected = OTHER_VALUES[key.name][1]
    assert value_of(config.load(tmp_path / "absent.toml", {key.name: expected}, {}), key.name) == (
        expected
    )
    path = write(tmp_path, config.render({key.name: expected}))
    assert value_of(config.load(path, {}, {}), key.name) == expected


@pytest.mark.parametrize(
    ("toml", "environment", "option", "expected"),
    [
        ("", None, None, 42),
        ("[split]\nseed = 1\n", None, None, 1),
        ("[split]\nseed = 1\n", "2", None, 2),
        ("[split]\nseed = 1\n", "2", 3, 3),
        ("[split]\nseed = 1\n", None, 3, 3),
        ("", "2", None, 2),
        ("", "2", 3, 3),
        ("[split]\nseed = 1\n", "2", 0, 0),
    ],
)
def test_precedence_is_option_environment_file_default(
    toml: str, environment: str | None, option: int | None, expected: int, tmp_path: Path
) -> None:
    variables = {} if environment is None else {"OIYOLO_SPLIT_SEED": environment}
    loaded = config.load(write(tmp_path, toml), {"seed": option}, variables)
    assert loaded.split.seed == expected


def test_os_environ_is_read_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIYOLO_SPLIT_SEED", "5")
    assert config.load(tmp_path / "absent.toml", {}).split.seed == 5


def test_other_variables_are_ignored(tmp_path: Path) -> None:
    loaded = config.load(tmp_path / "absent.toml", {}, {"OIYOLO_SPLIT_SEEED": "x", "SEED": "9"})
    assert loaded.split.seed == 42


@pytest.mark.parametrize(
    ("toml", "said", "suggested"),
    [
        ("[imges]\njobs = 1\n", "unknown section [imges]", "images"),
        ("[images]\nmirror-url = 'x'\n", "unknown key mirror-url in [images]", "mirror_url"),
        ("[dataset]\nclass = ['Boat']\n", "unknown key class in [dataset]", "classes"),
        ("[split]\nlimit = 3\n", "unknown key limit in [split]", "Choose one of"),
        ("seed = 3\n", "unknown section [seed]", ""),
        ("split = 3\n", "split is not a section", "[split]"),
    ],
)
def test_an_unknown_section_or_key_is_rejected_with_the_most_similar_one(
    toml: str, said: str, suggested: str, tmp_path: Path
) -> None:
    path = write(tmp_path, toml)
    with pytest.raises(UsageError) as caught:
        config.load(path, {}, {})
    assert said in str(caught.value)
    assert suggested in str(caught.value)
    assert caught.value.where == str(path)


def test_an_unknown_keyword_is_rejected_with_the_most_similar_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config.load(tmp_path / "absent.toml", {"mirorr_url": "x"}, {})
    assert "mirorr_url" in caught.value.what
    assert "mirror_url" in caught.value.remedy


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("dataset.classes", "[]"),
        ("dataset.classes", '[""]'),
        ("dataset.classes", "[1]"),
        ("dataset.classes", "7"),
        ("dataset.include_descendants", "1"),
        ("dataset.include_descendants", '"yes"'),
        ("dataset.subsets", '["training"]'),
        ("dataset.limit", "-1"),
        ("dataset.limit", "1.5"),
        ("dataset.limit", '"10"'),
        ("dataset.limit", "true"),
        ("dataset.limit", "nan"),
        ("dataset.limit", "inf"),
        ("dataset.negatives", "-0.1"),
        ("dataset.negatives", "nan"),
        ("dataset.negatives", "inf"),
        ("dataset.group_of", '"drop"'),
        ("dataset.occluded", '"mask"'),
        ("dataset.min_box_area", "1.1"),
        ("openimages.release", '"v8"'),
        ("openimages.release", "7"),
        ("openimages.base_url", '" "'),
        ("images.jobs", "0"),
        ("images.jobs", '"many"'),
        ("images.size", "[416]"),
        ("images.size", "[416, 417]"),
        ("images.size", "[0, 416]"),
        ("images.size", "[416, 416, 3]"),
        ("images.size", "[416.5, 416]"),
        ("images.size", '"416"'),
        ("images.size", '"big"'),
        ("images.size", "416"),
        ("images.fit", '"crop"'),
        ("images.tolerance", "2"),
        ("split.seed", "-1"),
        ("split.group_by", '["licence"]'),
        ("darknet.build_gpu", "true"),
        ("darknet.executable", "7"),
        ("train.engine", '"onnx"'),
        ("train.size_wh", '"large"'),
        ("train.max_batches", "0"),
        ("train.gpus", "0"),
        ("refresh.deadline", "6"),
        ("refresh.deadline", '"0h"'),
        ("refresh.deadline", '"6 hours"'),
        ("refresh.deadline", '"32d"'),
        ("refresh.on_failure", '["mail"]'),
        ("refresh.retrain_from", '"current"'),
    ],
)
def test_an_invalid_value_in_the_file_is_rejected_with_what_is_expected(
    key: str, raw: str, tmp_path: Path
) -> None:
    section, name = key.split(".")
    path = write(tmp_path, f"[{section}]\n{name} = {raw}\n")
    with pytest.raises(UsageError) as caught:
        config.load(path, {}, {})
    assert caught.value.what == f"invalid value for [{section}] {name}"
    assert caught.value.where == str(path)
    assert caught.value.expected == KEYS_BY_NAME[name].value_type.expected
    assert caught.value.found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("limit", "some"),
        ("limit", "1.5"),
        ("limit", "inf"),
        ("limit", "nan"),
        ("limit", ""),
        ("negatives", "inf"),
        ("keep_originals", "maybe"),
        ("classes", " , "),
        ("size", "416x"),
        ("max_batches", "all"),
        ("fit", "Stretch"),
    ],
)
def test_an_invalid_value_in_the_environment_is_rejected_naming_the_variable(
    name: str, text: str, tmp_path: Path
) -> None:
    variable = KEYS_BY_NAME[name].variable
    with pytest.raises(UsageError) as caught:
        config.load(tmp_path / "absent.toml", {}, {variable: text})
    assert caught.value.where == variable
    assert caught.value.expected == KEYS_BY_NAME[name].value_type.expected


def test_a_rate_is_0_or_large_enough_to_end(tmp_path: Path) -> None:
    absent = tmp_path / "absent.toml"
    assert config.load(absent, {"flickr_per_second": 0}, {}).images.flickr_per_second == 0
    with pytest.raises(UsageError):
        config.load(absent, {"flickr_per_second": 1e-300}, {})


def test_an_invalid_keyword_is_rejected_naming_the_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config.load(tmp_path / "absent.toml", {"mirror_url": 3}, {})
    assert caught.value.where == "option mirror-url"


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"train": 0.7}, "0.7 + 0.1 + 0.1 = 0.9"),
        ({"train": 0.0, "valid": 0.5, "test": 0.5}, "0.0 + 0.5 + 0.5 = 1"),
        ({"min_box_area": 0.5, "max_box_area": 0.1}, "0.5 > 0.1"),
        ({"sources": ["mirrors"]}, "'mirrors'"),
        ({"sources": ["mirror", "photos"]}, "'photos'"),
    ],
)
def test_contradictory_values_are_rejected(
    options: dict[str, object], values: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        config.load(tmp_path / "absent.toml", options, {})
    assert values in caught.value.what + caught.value.found


def test_invalid_toml_is_rejected_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "[dataset]\nclasses = [Boat]\n")
    with pytest.raises(UsageError) as caught:
        config.load(path, {}, {})
    assert "line 2" in caught.value.found
    assert caught.value.where == str(path)


def test_a_file_that_is_not_utf8_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / config.FILE_NAME
    path.write_bytes(b'[dataset]\nclasses = ["B\xe4r"]\n')
    with pytest.raises(UsageError) as caught:
        config.load(path, {}, {})
    assert caught.value.where == str(path)


def test_a_new_file_has_the_given_options_and_always_the_classes(tmp_path: Path) -> None:
    text = config.render({"seed": 3, "limit": None})
    assert 'classes = ["Boat"]' in text
    assert "seed = 3" in text
    assert "limit" not in text
    assert config.read_file(write(tmp_path, text)) == {
        "dataset": {"classes": ("Boat",)},
        "split": {"seed": 3},
    }


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
        .map(str.strip)
        .filter(bool),
        min_size=1,
        unique=True,
    ),
    area=st.floats(0.0, 1.0),
    currency=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1)
    .filter(lambda text: bool(text.strip())),
)  # fmt: skip
def test_any_options_round_trip_through_a_new_file(
    tmp_path: Path, classes: list[str], area: float, currency: str
) -> None:
    path = tmp_path / config.FILE_NAME
    path.write_bytes(
        config.render({"classes": classes, "min_box_area": area, "currency": currency}).encode()
    )
    loaded = config.load(path, {}, {})
    assert loaded.dataset.classes == tuple(classes)
    assert loaded.dataset.min_box_area == area
    assert loaded.train.currency == currency


def test_a_section_is_json_compatible() -> None:
    assert config.as_dict(SplitOptions())["group_by"] == ["duplicate", "author"]


def test_a_single_text_is_a_list_of_one(tmp_path: Path) -> None:
    path = write(tmp_path, '[dataset]\nclasses = "Boat"\n')
    assert config.load(path, {}, {}).dataset.classes == ("Boat",)


def test_a_repeated_word_counts_once(tmp_path: Path) -> None:
    loaded = config.load(tmp_path / "x", {"classes": ["Boat", "Duck", " Boat"]}, {})
    assert loaded.dataset.classes == ("Boat", "Duck")


def test_metavariables_fit_the_type_of_the_value() -> None:
    assert KEYS_BY_NAME["size"].value_type.placeholder == "WIDTHxHEIGHT"
    assert KEYS_BY_NAME["fit"].value_type.placeholder == "stretch|letterbox|none"
    assert KEYS_BY_NAME["limit"].value_type.placeholder == "N"
    assert KEYS_BY_NAME["negatives"].value_type.placeholder == "NUMBER"


def default_texts(value: object) -> set[str]:
    """Return the ways to write a default in the documentation."""
    if value is None:
        return {"unset", "none", "nothing", "-", '""'}
    plain = {config._toml(value), str(value)}
    if isinstance(value, float):
        plain.add(f"{value:g}")
    if isinstance(value, tuple) and all(isinstance(item, int) for item in value):
        plain.add("x".join(map(str, value)))
    return plain


@pytest.mark.parametrize("key", KEYS, ids=by_name)
def test_the_documentation_has_a_row_with_the_default_of_every_key(key: Key) -> None:
    rows = [
        line
        for line in DOCS.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{key.name}` |")
    ]
    assert len(rows) == 1, f"{DOCS.name}: {len(rows)} rows for {key.name}"
    cells = [cell.strip().strip("`") for cell in rows[0].strip("|").split("|")]
    text = " ".join(cells[1:])
    assert any(form in text for form in default_texts(key.default)), rows[0]
    assert {key.variable, f"--{key.option}"} <= set(re.findall(r"`([^`]*)`", rows[0]))


def test_the_documentation_has_no_row_for_an_unknown_key() -> None:
    named = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) == set(KEYS_BY_NAME)


def test_the_documentation_names_every_section() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [s for s in {key.section for key in KEYS} if f"[{s}]" not in text] == []


def test_the_kind_of_a_type_fits_the_default() -> None:
    for key in KEYS:
        assert key.value_type.is_flag == isinstance(key.default, bool)
        if key.value_type.is_list:
            assert isinstance(key.default, tuple)
